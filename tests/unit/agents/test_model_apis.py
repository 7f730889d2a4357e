"""Requests to a model's server, and the parts of its answer that the next request sends back."""

import json
from collections.abc import AsyncIterator
from typing import Any

from agents import FunctionTool
from agents.tool_context import ToolContext

from latchkey.domain.agent import ModelCall
from latchkey.domain.assistant import ModelOptions
from latchkey.domain.turn import Usage
from latchkey.infrastructure.agents.openai.chat_completions import ChatCompletionsApi
from latchkey.infrastructure.agents.openai.model import CompletedResponse, ModelApi
from latchkey.infrastructure.agents.openai.responses import ResponsesApi

SCHEMA = {"type": "object", "properties": {"text": {"type": "string"}}}
HELLO: Any = {"role": "user", "content": "Hello"}
PART = {"type": "output_text", "text": "Well,", "annotations": [{"type": "url_citation"}], "logprobs": []}
CALL = {"type": "function_call", "id": "fc_1", "call_id": "call_1", "name": "note", "arguments": "{}", "status": "x"}
"""An item with an id. The server is told to store nothing, so the id must not be sent back."""


async def fail(_: ToolContext[Any], __: str) -> str:
    raise AssertionError("No tool may be called here.")


NOTE = FunctionTool("note", "Write a note down.", SCHEMA, fail, strict_json_schema=False)


async def decode(api: ModelApi, *events: dict[str, Any]) -> CompletedResponse:
    async def chunks() -> AsyncIterator[list[bytes]]:
        for event in events:
            yield [json.dumps(event).encode()]
        yield [b"[DONE]"]

    model_events = [event async for batch in api.decode_events(chunks()) for event in batch]
    (response,) = [event for event in model_events if isinstance(event, CompletedResponse)]
    return response


def encode_again(api: ModelApi, response: CompletedResponse) -> list[dict[str, Any]]:
    """The items of a response as the next step of the turn sends them."""
    items: Any = [item.model_dump(exclude_unset=True) for item in response.output]
    body = json.loads(api.encode_request(None, [HELLO, *items], []))
    conversation: list[dict[str, Any]] = body["messages" if "messages" in body else "input"]
    return conversation[1:]


def test_responses_request_has_exactly_the_needed_fields() -> None:
    assert json.loads(ResponsesApi("m", is_openai=True).encode_request("Be kind.", [HELLO], [NOTE])) == {
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


def test_chat_completions_request_has_exactly_the_needed_fields() -> None:
    function = {"name": "note", "description": "Write a note down.", "parameters": SCHEMA, "strict": False}
    assert json.loads(ChatCompletionsApi("m", is_openai=True).encode_request("Be kind.", [HELLO], [NOTE])) == {
        "model": "m",
        "stream": True,
        "stream_options": {"include_usage": True},
        "store": False,
        "messages": [{"role": "system", "content": "Be kind."}, HELLO],
        "tools": [{"type": "function", "function": function}],
        "parallel_tool_calls": False,
    }


def test_request_limits_the_output_under_the_name_that_the_server_knows() -> None:
    """OpenAI's models that reason refuse `max_tokens`; many other servers know no other name."""
    options = ModelOptions(max_output_tokens=7)
    openai, other = (
        json.loads(ChatCompletionsApi("m", options, is_openai=is_openai).encode_request(None, [HELLO], []))
        for is_openai in (True, False)
    )

    assert (openai["max_completion_tokens"], "max_tokens" in openai) == (7, False)
    assert (other["max_tokens"], "max_completion_tokens" in other) == (7, False)


def test_request_to_other_servers_lacks_the_fields_that_only_openai_knows() -> None:
    """Some servers refuse a request with a field that they do not know."""
    responses, chat = (
        json.loads(api("m", is_openai=False).encode_request(None, [HELLO], [NOTE]))
        for api in (ResponsesApi, ChatCompletionsApi)
    )

    assert not {"store", "include"} & (responses.keys() | chat.keys())
    assert "strict" not in responses["tools"][0] | chat["tools"][0]["function"]


def test_request_without_tools_has_no_tool_options() -> None:
    """Servers of the Chat Completions API refuse them."""
    responses, chat = (
        json.loads(api("m", is_openai=True).encode_request(None, [HELLO], []))
        for api in (ResponsesApi, ChatCompletionsApi)
    )

    assert (responses["tools"], "tools" in chat) == ([], False)
    assert not {"parallel_tool_calls", "instructions"} & {*responses, *chat}


def test_lone_surrogate_is_sent_as_an_escape_sequence() -> None:
    item: Any = {"role": "user", "content": "half \ud83d"}

    for api in (ResponsesApi("m", is_openai=True), ChatCompletionsApi("m", is_openai=True)):
        assert rb"half \ud83d" in api.encode_request(None, [item], [])


async def test_ids_and_reasoning_are_not_encode_again() -> None:
    """The server has stored nothing, so it would refuse ids as unknown."""
    api = ResponsesApi("m", is_openai=True)
    message = {"type": "message", "id": "msg_1", "role": "assistant", "status": "completed", "content": [PART]}
    reasoning = {"type": "reasoning", "id": "rs_1", "summary": []}
    search = {"type": "web_search_call", "id": "ws_1", "status": "completed"}
    output = [reasoning, search, message | {"phase": "commentary"}, CALL]
    response = await decode(api, {"type": "response.completed", "response": {"output": output, "usage": None}})

    assert (response.text, response.calls_tools) == ("Well,", True)
    assert encode_again(api, response) == [
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


async def test_reasoning_and_signatures_of_chat_completions_are_encode_again() -> None:
    """DeepSeek refuses a tool call without its reasoning, and Gemini one without its signature."""
    call = {"index": 0, "id": "call_1", "function": {"name": "note", "arguments": "{}"}}
    signed = call | {"extra_content": {"google": {"thought_signature": "signed"}}}
    deepseek, gemini = (ChatCompletionsApi(model, is_openai=False) for model in ("deepseek-chat", "gemini-3"))
    reasoned = await decode(
        deepseek, chunk({"reasoning_content": "Hm."}), chunk({"tool_calls": [call]}), chunk({}, "tool_calls")
    )
    signed_answer = await decode(gemini, chunk({"tool_calls": [signed]}), chunk({}, "tool_calls"))

    assert encode_again(deepseek, reasoned)[0]["reasoning_content"] == "Hm."
    (call_again,) = encode_again(gemini, signed_answer)[0]["tool_calls"]
    assert call_again["extra_content"] == signed["extra_content"]


async def test_usage_comes_with_the_completed_response() -> None:
    async def chunks() -> AsyncIterator[list[bytes]]:
        usage = {"input_tokens": 7, "output_tokens": 2}
        yield [
            json.dumps(
                {"type": "response.completed", "response": {"model": "m-2026", "output": [CALL], "usage": usage}}
            ).encode()
        ]

    (batch,) = [batch async for batch in ResponsesApi("m", is_openai=True).decode_events(chunks())]

    assert batch[0] == ModelCall(Usage(1, 7, 2), "m-2026")
