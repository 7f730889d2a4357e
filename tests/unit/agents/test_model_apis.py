"""What goes to a model's server, and what of its answer goes there again."""

import json
from collections.abc import AsyncIterator
from typing import Any

from agents import FunctionTool
from agents.tool_context import ToolContext

from latchkey.domain.turn import Usage
from latchkey.infrastructure.agents.openai.chat_completions import ChatCompletionsApi
from latchkey.infrastructure.agents.openai.model_api import CompletedResponse, ModelApi
from latchkey.infrastructure.agents.openai.responses import ResponsesApi

SCHEMA = {"type": "object", "properties": {"text": {"type": "string"}}}
HELLO: Any = {"role": "user", "content": "Hello"}
PART = {"type": "output_text", "text": "Well,", "annotations": [{"type": "url_citation"}], "logprobs": []}
CALL = {"type": "function_call", "id": "fc_1", "call_id": "call_1", "name": "note", "arguments": "{}", "status": "x"}
"""An item of an answer that a server keeps under an id, of which it is to keep nothing."""


async def never(_: ToolContext[Any], __: str) -> str:
    raise AssertionError("Nobody calls a tool here.")


NOTE = FunctionTool("note", "Write a note down.", SCHEMA, never, strict_json_schema=False)


async def answer_to(wire: ModelApi, *events: dict[str, Any]) -> CompletedResponse:
    async def told() -> AsyncIterator[list[bytes]]:
        for event in events:
            yield [json.dumps(event).encode()]
        yield [b"[DONE]"]

    decode_events = [event async for together in wire.decode_events(told()) for event in together]
    (answer,) = [event for event in decode_events if isinstance(event, CompletedResponse)]
    return answer


def sent_back(wire: ModelApi, answer: CompletedResponse) -> list[dict[str, Any]]:
    """As the next step of a turn sends what the last one has said."""
    said: Any = [item.model_dump(exclude_unset=True) for item in answer.output]
    body = json.loads(wire.encode_request(None, [HELLO, *said], []))
    conversation: list[dict[str, Any]] = body["messages" if "messages" in body else "input"]
    return conversation[1:]


def test_a_request_of_the_responses_api_has_what_is_needed_and_no_more() -> None:
    assert json.loads(ResponsesApi("m").encode_request("Be kind.", [HELLO], [NOTE])) == {
        "model": "m",
        "stream": True,
        "store": False,
        "include": [],
        "instructions": "Be kind.",
        "input": [HELLO],
        "tools": [
            {
                "type": "function",
                "name": "note",
                "description": "Write a note down.",
                "parameters": SCHEMA,
                "strict": False,
            }
        ],
        "parallel_tool_calls": False,
    }


def test_a_request_of_the_chat_completions_api_has_what_is_needed_and_no_more() -> None:
    function = {"name": "note", "description": "Write a note down.", "parameters": SCHEMA, "strict": False}
    assert json.loads(ChatCompletionsApi("m").encode_request("Be kind.", [HELLO], [NOTE])) == {
        "model": "m",
        "stream": True,
        "stream_options": {"include_usage": True},
        "store": False,
        "messages": [{"role": "system", "content": "Be kind."}, HELLO],
        "tools": [{"type": "function", "function": function}],
        "parallel_tool_calls": False,
    }


def test_without_tools_nothing_is_said_of_how_they_are_called() -> None:
    """Servers of the Chat Completions API refuse what is."""
    responses, chat = (
        json.loads(wire("m").encode_request(None, [HELLO], [])) for wire in (ResponsesApi, ChatCompletionsApi)
    )

    assert (responses["tools"], "tools" in chat) == ([], False)
    assert not {"parallel_tool_calls", "instructions"} & {*responses, *chat}


def test_half_a_surrogate_pair_reaches_the_server_as_an_escape() -> None:
    said: Any = {"role": "user", "content": "half \ud83d"}

    for wire in (ResponsesApi("m"), ChatCompletionsApi("m")):
        assert rb"half \ud83d" in wire.encode_request(None, [said], [])


async def test_nothing_is_sent_back_that_the_server_would_have_to_look_up() -> None:
    """A model that reasons names its reasoning and its calls by ids; sent back, they are refused as unknown."""
    wire = ResponsesApi("m")
    message = {"type": "message", "id": "msg_1", "role": "assistant", "status": "completed", "content": [PART]}
    reasoning = {"type": "reasoning", "id": "rs_1", "summary": []}
    search = {"type": "web_search_call", "id": "ws_1", "status": "completed"}
    output = [reasoning, search, message | {"phase": "commentary"}, CALL]
    answer = await answer_to(wire, {"type": "response.completed", "response": {"output": output, "usage": None}})

    assert (answer.text, answer.calls_tools) == ("Well,", True)
    assert sent_back(wire, answer) == [
        {
            "type": "message",
            "role": "assistant",
            "status": "completed",
            "phase": "commentary",
            "content": [{"type": "output_text", "text": "Well,", "annotations": []}],
        },
        {"type": "function_call", "call_id": "call_1", "name": "note", "arguments": "{}", "status": "completed"},
    ]


def chunk(delta: dict[str, Any], finish: str | None = None) -> dict[str, Any]:
    return {"id": "c", "model": "m", "choices": [{"index": 0, "delta": delta, "finish_reason": finish}]}


async def test_servers_that_want_their_thoughts_back_get_them() -> None:
    """DeepSeek refuses a call that comes without the thought that led to it, and Gemini one without its signature."""
    call = {"index": 0, "id": "call_1", "function": {"name": "note", "arguments": "{}"}}
    signed = call | {"extra_content": {"google": {"thought_signature": "signed"}}}
    deepseek, gemini = ChatCompletionsApi("deepseek-chat"), ChatCompletionsApi("gemini-3")
    thought = await answer_to(
        deepseek, chunk({"reasoning_content": "Hm."}), chunk({"tool_calls": [call]}), chunk({}, "tool_calls")
    )
    kept = await answer_to(gemini, chunk({"tool_calls": [signed]}), chunk({}, "tool_calls"))

    assert sent_back(deepseek, thought)[0]["reasoning_content"] == "Hm."
    (again,) = sent_back(gemini, kept)[0]["tool_calls"]
    assert again["extra_content"] == signed["extra_content"]


async def test_what_an_answer_has_cost_is_heard_with_it() -> None:
    async def told() -> AsyncIterator[list[bytes]]:
        usage = {"input_tokens": 7, "output_tokens": 2}
        yield [json.dumps({"type": "response.completed", "response": {"output": [CALL], "usage": usage}}).encode()]

    (together,) = [together async for together in ResponsesApi("m").decode_events(told())]

    assert together[0] == Usage(1, 7, 2)
