"""Cases of OpenAI's APIs alone: refusals, answers without deltas, and answers that the server ends with an error."""

import json
from collections.abc import AsyncIterator
from types import NoneType
from typing import Any

import pytest
from msgspec.structs import replace

from latchkey.domain.agent import TextDelta
from latchkey.domain.assistant import ModelOptions
from latchkey.domain.errors import ModelBadResponse, ModelUnavailable, RateLimited, TurnFailed
from latchkey.domain.message import PastTurn
from latchkey.domain.turn import Usage
from tests.contract.agents.agent_harness import AgentHarness, openai_adapter
from tests.fakes.model_script import Reply
from tests.fakes.model_server import model_server
from tests.fakes.tool_server import ToolServer

USAGE = {
    "input_tokens": 4,
    "input_tokens_details": {"cached_tokens": 0, "cache_write_tokens": 0},
    "output_tokens": 2,
    "output_tokens_details": {"reasoning_tokens": 0},
    "total_tokens": 6,
}


@pytest.fixture
async def responses() -> AsyncIterator[AgentHarness]:
    tools = ToolServer()
    async with model_server() as model, openai_adapter("responses")(tools, model.base_url) as agent:
        yield AgentHarness(agent, model, tools)


@pytest.fixture
async def chat() -> AsyncIterator[AgentHarness]:
    tools = ToolServer()
    async with model_server() as model, openai_adapter("chat_completions")(tools, model.base_url) as agent:
        yield AgentHarness(agent, model, tools)


def stream(*events: dict[str, Any]) -> Reply:
    body = "".join(f"data: {json.dumps(event)}\n\n" for event in events)
    return Reply(200, body.encode(), "text/event-stream")


def final_event(status: str, *, output: list[dict[str, Any]] | None = None, **more: Any) -> dict[str, Any]:
    response = {"id": "r", "object": "response", "created_at": 0, "model": "fake", "status": status, "usage": USAGE}
    settings = {"parallel_tool_calls": False, "tool_choice": "auto", "tools": []}
    return {"type": f"response.{status}", "response": {**response, **settings, "output": output or [], **more}}


def message(part: dict[str, Any]) -> dict[str, Any]:
    return {"type": "message", "id": "m", "role": "assistant", "status": "completed", "content": [part]}


def text_delta(delta: str) -> dict[str, Any]:
    return {"type": "response.output_text.delta", "item_id": "m", "output_index": 0, "content_index": 0, "delta": delta}


def chunk(delta: dict[str, Any], finish: str | None = None) -> dict[str, Any]:
    choices = [{"index": 0, "delta": delta, "finish_reason": finish}]
    return {"id": "c", "object": "chat.completion.chunk", "created": 0, "model": "fake", "choices": choices}


async def test_refusal_of_the_model_is_the_answer(responses: AgentHarness, chat: AgentHarness) -> None:
    position = {"item_id": "m", "output_index": 0, "content_index": 0}
    delta = {"type": "response.refusal.delta", **position, "delta": "I will not."}
    from_responses = await responses.run_turn(
        stream(delta, final_event("completed", output=[message({"type": "refusal", "refusal": "I will not."})]))
    )
    from_chat = await chat.run_turn(stream(chunk({"role": "assistant", "refusal": "I will not."}), chunk({}, "stop")))

    assert (from_responses.text, from_responses.failure) == (from_chat.text, from_chat.failure) == ("I will not.", None)


async def test_text_without_deltas_is_published(responses: AgentHarness) -> None:
    part = {"type": "output_text", "text": "All at once.", "annotations": []}
    outcome = await responses.run_turn(stream(final_event("completed", output=[message(part)])))

    assert outcome.text == "All at once."


async def test_text_that_arrives_with_the_end_is_one_delta_marked_last(responses: AgentHarness) -> None:
    """It is one delta, however many events it had, so that it can be stored together with the end of the turn."""
    text = {"type": "output_text", "text": "Hello there.", "annotations": []}
    end = final_event("completed", output=[message(text)])
    streamed = await responses.run_turn(stream(text_delta("Hello "), text_delta("there."), end))
    unstreamed = await responses.run_turn(stream(end))

    for outcome in (streamed, unstreamed):
        assert outcome.events[:-1] == [TextDelta("Hello there.", is_last=True)]
        assert [(call.usage, call.model) for call in outcome.model_calls] == [(Usage(1, 4, 2), "fake")]


async def test_no_delta_is_marked_last_before_a_tool_call(responses: AgentHarness) -> None:
    text = {"type": "output_text", "text": "Let me see.", "annotations": []}
    call = {"type": "function_call", "call_id": "c", "name": "note", "arguments": '{"text":"milk"}'}
    last = {"type": "output_text", "text": "Noted.", "annotations": []}
    outcome = await responses.run_turn(
        stream(text_delta("Let "), text_delta("me see."), final_event("completed", output=[message(text), call])),
        stream(text_delta("Noted."), final_event("completed", output=[message(last)])),
    )

    assert [event for event in outcome.events if isinstance(event, TextDelta)] == [
        TextDelta("Let "),
        TextDelta("me see."),
        TextDelta("\n\nNoted.", is_last=True),
    ]


async def test_text_that_arrives_with_a_failure_is_published(responses: AgentHarness) -> None:
    outcome = await responses.run_turn(stream(text_delta("Once "), text_delta("upon"), final_event("incomplete")))

    assert isinstance(outcome.failure, ModelBadResponse)
    assert outcome.deltas == ["Once ", "upon"]


@pytest.mark.parametrize(
    ("last", "failure"),
    [
        (final_event("failed", error={"code": "server_error", "message": "x"}), ModelUnavailable),
        (final_event("failed", error={"code": "rate_limit_exceeded", "message": "x"}), RateLimited),
        (final_event("incomplete", incomplete_details={"reason": "max_output_tokens"}), ModelBadResponse),
    ],
)
async def test_answer_that_the_server_ends_with_an_error_fails_and_counts_usage(
    responses: AgentHarness, last: dict[str, Any], failure: type[TurnFailed]
) -> None:
    outcome = await responses.run_turn(stream(last))

    assert type(outcome.failure) is failure
    assert outcome.usage == Usage(1, 4, 2)


async def test_truncated_answer_is_bad_response(chat: AgentHarness) -> None:
    outcome = await chat.run_turn(stream(chunk({"role": "assistant", "content": "Once upon"}), chunk({}, "length")))

    assert isinstance(outcome.failure, ModelBadResponse), outcome


async def test_answer_without_usage_counts_one_request(chat: AgentHarness) -> None:
    outcome = await chat.run_turn(stream(chunk({"role": "assistant", "content": "Hello."}), chunk({}, "stop")))

    assert (outcome.text, outcome.usage) == ("Hello.", Usage(1))


@pytest.mark.parametrize(
    ("reported", "name"),
    [
        ("gpt-5.4-2026-03-05", "gpt-5.4-2026-03-05"),
        ("  models/qwen\u0000\n3\u2028", "models/qwen 3"),
        ("x" * 5000, "x" * 200),
        ("", None),
        (None, None),
        ({"id": "x"}, None),
        (5, None),
    ],
)
async def test_model_name_is_the_one_in_the_answer_on_one_bounded_line(
    responses: AgentHarness, chat: AgentHarness, reported: object, name: str | None
) -> None:
    part = {"type": "output_text", "text": "Hello.", "annotations": []}
    end = final_event("completed", output=[message(part)], model=reported)
    from_responses = await responses.run_turn(stream(end))
    from_chat = await chat.run_turn(
        stream(
            {**chunk({"role": "assistant", "content": "Hello."}), "model": reported},
            {**chunk({}, "stop"), "model": reported},
        )
    )

    assert [call.model for call in from_responses.model_calls] == [name]
    assert [call.model for call in from_chat.model_calls] == [name]


@pytest.mark.parametrize(
    ("details", "cached"),
    [({"cached_tokens": 3}, 3), ({"cached_tokens": None}, 0), ({}, 0), (None, 0), ([], 0), ({"cached_tokens": "x"}, 0)],
)
async def test_cached_tokens_and_duration_of_each_model_request_are_reported(
    responses: AgentHarness, chat: AgentHarness, details: object, cached: int
) -> None:
    part = {"type": "output_text", "text": "Hello.", "annotations": []}
    usage = {"input_tokens": 4, "output_tokens": 2, "input_tokens_details": details}
    end = final_event("completed", output=[message(part)])
    end["response"]["usage"] = usage
    turn = await responses.run_turn(stream(end))
    (call,) = turn.model_calls
    assert (call.usage, call.cached_tokens, len(turn.metrics.model_ms)) == (Usage(1, 4, 2), cached, 1)

    usage = {"prompt_tokens": 4, "completion_tokens": 2, "prompt_tokens_details": details}
    last = {**chunk({}, "stop"), "usage": usage}
    turn = await chat.run_turn(stream(chunk({"role": "assistant", "content": "Hello."}), last))
    (call,) = turn.model_calls
    assert (call.usage, call.cached_tokens, len(turn.metrics.model_ms)) == (Usage(1, 4, 2), cached, 1)


async def test_request_demands_an_uncompressed_stream(responses: AgentHarness, chat: AgentHarness) -> None:
    """The end of a compressed stream would not be visible."""
    part = {"type": "output_text", "text": "Hello.", "annotations": []}
    await responses.run_turn(stream(final_event("completed", output=[message(part)])))
    await chat.run_turn(stream(chunk({"role": "assistant", "content": "Hello."}), chunk({}, "stop")))

    requests = [*responses.model.requests, *chat.model.requests]
    assert [request.headers["accept-encoding"] for request in requests] == ["identity", "identity"]
    assert all(request.body["stream"] for request in requests)


async def test_answers_in_the_history_are_messages_with_a_type(responses: AgentHarness) -> None:
    """OpenAI takes them without one, and llama.cpp refuses them."""
    history = [PastTurn("Hello", [], "Good morning.")]
    part = {"type": "output_text", "text": "Hello.", "annotations": []}
    end = final_event("completed", output=[message(part)])

    await responses.run_turn(stream(end), agent_run=responses.agent_run("Again", history=history))

    (request,) = responses.model.requests
    assert request.body["input"][1] == {"type": "message", "role": "assistant", "content": "Good morning."}


@pytest.mark.parametrize(("limit", "failure"), [(3, NoneType), (2, ModelBadResponse)])
async def test_completed_answer_with_as_many_tokens_as_allowed_is_cut_off(
    responses: AgentHarness, limit: int, failure: type
) -> None:
    """llama.cpp reports an answer that it cut off as completed. This one has two tokens."""
    part = {"type": "output_text", "text": "Hello.", "annotations": []}
    end = final_event("completed", output=[message(part)])
    options = ModelOptions(max_output_tokens=limit)

    outcome = await responses.run_turn(stream(end), agent_run=replace(responses.agent_run(), options=options))

    assert type(outcome.failure) is failure
