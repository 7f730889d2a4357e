"""Writes a tiny language model for llama.cpp to the file that is its argument.

The next token depends on the last one only. So the chat template selects the whole answer by the last token of the
prompt.
"""

import sys

import numpy as np  # type: ignore[import-not-found]
from gguf import GGUFWriter, TokenType  # type: ignore[import-not-found]

CONTEXT = 16384
END = "<|end|>"
ANSWERS = {
    "<|assistant|>": ["Hello", " from", " llama.cpp", " 🥛"],
    "<|call|>": [
        "<tool_call>",
        "\n",
        '{"name": "add_task", "arguments": {"title": "',
        "Buy milk",
        '"}}',
        "\n</tool_call>",
    ],
    "<|result|>": ["It", " is", " on your list."],
    "<|endless|>": ["la"],
}
"""The words that follow the last token of the prompt."""
REPEATED = "la"
TEMPLATE = """
{%- if tools %}<|system|># Tools
{% for tool in tools %}{{ tool | tojson }}
{% endfor %}Call a tool as <tool_call>
{"name": <function-name>, "arguments": <args-json-object>}
</tool_call><|end|>{% endif %}
{%- for message in messages %}
{%- if message.role == "tool" %}<|tool|><tool_response>
{{ message.content }}
</tool_response><|end|>
{%- elif message.role == "assistant" %}<|assistant|>{{ message.content or "" }}
{%- for call in message.tool_calls or [] %}<tool_call>
{"name": "{{ call.function.name }}", "arguments": {{ call.function.arguments | tojson }}}
</tool_call>{% endfor %}<|end|>
{%- else %}<|{{ message.role }}|>{{ message.content }}<|end|>
{%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}
{%- if messages[-1].role == "tool" %}<|result|>
{%- elif "endless" in messages[-1].content %}<|endless|>
{%- elif "task" in messages[-1].content %}<|call|>
{%- else %}<|assistant|>
{%- endif %}
{%- endif %}
""".strip()
"""In the format of Hermes, which llama.cpp recognises."""

_CONTROL = ["<s>", END, "<|system|>", "<|user|>", "<|tool|>", *ANSWERS]
_WORDS = list(dict.fromkeys(word for words in ANSWERS.values() for word in words))
_VOCABULARY = {
    "<unk>": TokenType.UNKNOWN,
    **{f"<0x{byte:02X}>": TokenType.BYTE for byte in range(256)},
    **dict.fromkeys(_CONTROL, TokenType.CONTROL),
    **dict.fromkeys(_WORDS, TokenType.USER_DEFINED),
}
_IDS = {token: id for id, token in enumerate(_VOCABULARY)}
_SIZE = (len(_IDS) + 31) // 32 * 32  # the rows of a tensor
_ROWS = 32
"""Of each head and of the feed-forward layer."""


def main(path: str) -> None:
    writer = GGUFWriter(path, "llama")
    write_parameters(writer)
    write_tokenizer(writer)
    write_tensors(writer)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def write_parameters(writer: GGUFWriter) -> None:
    writer.add_context_length(CONTEXT)
    writer.add_embedding_length(_SIZE)
    writer.add_feed_forward_length(_ROWS)
    writer.add_block_count(1)
    writer.add_head_count(1)
    writer.add_head_count_kv(1)
    writer.add_key_length(_ROWS)
    writer.add_value_length(_ROWS)
    writer.add_rope_dimension_count(_ROWS)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_vocab_size(len(_IDS))


def write_tokenizer(writer: GGUFWriter) -> None:
    writer.add_tokenizer_model("llama")
    writer.add_token_list(list(_VOCABULARY))
    writer.add_token_types(list(_VOCABULARY.values()))
    writer.add_token_scores([0.0] * len(_IDS))
    writer.add_unk_token_id(0)
    writer.add_bos_token_id(_IDS["<s>"])
    writer.add_eos_token_id(_IDS[END])
    writer.add_add_space_prefix(value=False)
    writer.add_chat_template(TEMPLATE)


def write_tensors(writer: GGUFWriter) -> None:
    """Attention and feed-forward add nothing, so that the output depends on the embedding of the last token alone."""
    ones = np.ones(_SIZE, np.float32)
    zeros = np.zeros((_ROWS, _SIZE), np.float32)
    tensors = {
        "token_embd": np.eye(len(_IDS), _SIZE, dtype=np.float32),
        "output": next_tokens(),
        "output_norm": ones,
        "blk.0.attn_norm": ones,
        "blk.0.ffn_norm": ones,
        **dict.fromkeys([f"blk.0.{name}" for name in ("attn_q", "attn_k", "attn_v", "ffn_gate", "ffn_up")], zeros),
        **dict.fromkeys(["blk.0.attn_output", "blk.0.ffn_down"], zeros.T.copy()),
    }
    for name, tensor in tensors.items():
        writer.add_tensor(f"{name}.weight", tensor)


def next_tokens() -> np.ndarray:
    """The weights that map each token to the one that follows it."""
    weights = np.zeros((len(_IDS), _SIZE), np.float32)
    for start, words in ANSWERS.items():
        for last, following in zip([start, *words], [*words, END], strict=True):
            weights[_IDS[REPEATED if last == REPEATED else following], _IDS[last]] = 4
    return weights


main(sys.argv[1])
