"""An answer as Anthropic's Messages API gives it: the events that say it and those that end it, or one message."""

import json
from typing import Any
from uuid import uuid4

from tests.fakes.model_script import Answer

SERVER = "mcp__latchkey__"
"""How the Claude CLI names the tools of an MCP server to the model."""


def anthropic_events(answer: Answer) -> tuple[list[bytes], list[bytes]]:
    tokens_in, tokens_out = answer.tokens
    said = [_event("message_start", message=_message([], None, (tokens_in, 1)))]
    if answer.pieces:
        said += _block(0, {"type": "text", "text": ""}, *({"type": "text_delta", "text": one} for one in answer.pieces))
    for index, (name, arguments) in enumerate(answer.calls, bool(answer.pieces)):
        block = {"type": "tool_use", "id": _id("toolu"), "name": SERVER + name, "input": {}}
        said += _block(index, block, {"type": "input_json_delta", "partial_json": arguments})
    delta = {"stop_reason": _stop_reason(answer), "stop_sequence": None}
    return said, [_event("message_delta", delta=delta, usage={"output_tokens": tokens_out}), _event("message_stop")]


def anthropic_message(answer: Answer) -> bytes:
    """The same in one piece, for a client that asks for no stream."""
    content: list[dict[str, Any]] = [{"type": "text", "text": "".join(answer.pieces)}] if answer.pieces else []
    content += [
        {"type": "tool_use", "id": _id("toolu"), "name": SERVER + name, "input": json.loads(arguments)}
        for name, arguments in answer.calls
    ]
    return json.dumps(_message(content, _stop_reason(answer), answer.tokens)).encode()


def _block(index: int, block: dict[str, Any], *deltas: dict[str, Any]) -> list[bytes]:
    return [
        _event("content_block_start", index=index, content_block=block),
        *(_event("content_block_delta", index=index, delta=delta) for delta in deltas),
        _event("content_block_stop", index=index),
    ]


def _message(content: list[dict[str, Any]], stop_reason: str | None, tokens: tuple[int, int]) -> dict[str, Any]:
    return {
        "id": _id("msg"),
        "type": "message",
        "role": "assistant",
        "model": "claude-fake",
        "content": content,
        "stop_reason": stop_reason,
        "stop_sequence": None,
        "usage": {"input_tokens": tokens[0], "output_tokens": tokens[1]},
    }


def _stop_reason(answer: Answer) -> str:
    return "tool_use" if answer.calls else "end_turn"


def _event(kind: str, **data: Any) -> bytes:
    return f"event: {kind}\ndata: {json.dumps({'type': kind, **data})}\n\n".encode()


def _id(prefix: str) -> str:
    return f"{prefix}_{uuid4().hex}"
