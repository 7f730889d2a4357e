"""An agent publishes each tool call before it makes the call: the tool, the arguments and the id."""

import asyncio
import json
import re
from asyncio import Event
from collections.abc import AsyncGenerator

import msgspec
import pytest

from latchkey.domain.agent import AgentEvent, TextDelta
from latchkey.domain.errors import ModelBadResponse
from latchkey.domain.tool_call import ToolRequest, ToolReturned
from latchkey.domain.turn import Usage
from tests.contract.agents.agent_harness import Adapter, AgentHarness, RecordedTurn
from tests.fakes.model_script import Answer, Reply, calls, says

NOTE = ("note", '{"text":"milk"}')
IDS = re.compile(rb"(call|toolu)_[0-9a-f]{32}")
YIELDS = 200


def announced_calls(outcome: RecordedTurn) -> list[tuple[str, str, object]]:
    return [(request.call_id, request.name, msgspec.json.decode(request.arguments)) for request in outcome.requests]


def received_calls(harness: AgentHarness, adapter: Adapter) -> list[tuple[str, str, object]]:
    return [(call.meta[adapter.call_id], call.name, call.arguments) for call in harness.tools.calls]


def with_call_id(call_id: str, answer: Answer, adapter: Adapter) -> Reply:
    """The answer, with this id for its tool call."""
    content, end = adapter.encode_answer(answer)
    encoded_id = json.dumps(call_id)[1:-1].encode()
    return Reply(200, IDS.sub(lambda _: encoded_id, b"".join([*content, *end])), "text/event-stream")


async def first_request(turn: AsyncGenerator[AgentEvent, None]) -> ToolRequest:
    """The first request. The consumer has not asked for the next event since."""
    async for event in turn:
        if isinstance(event, ToolRequest):
            return event
    raise AssertionError("The turn ended without a request.")


async def run_other_tasks() -> None:
    """Let all other tasks run until they wait."""
    for _ in range(YIELDS):
        await asyncio.sleep(0)


async def test_announced_call_equals_the_call_that_arrives(harness: AgentHarness, adapter: Adapter) -> None:
    """The tool's own name, its arguments and its id."""
    outcome = await harness.run_turn(calls(("note", '{"due":null,"text":"ünï 🚀"}'), saying=("Well,",)), says("Noted."))

    assert announced_calls(outcome) == received_calls(harness, adapter)
    assert [(name, arguments) for _, name, arguments in announced_calls(outcome)] == [
        ("note", {"due": None, "text": "ünï 🚀"})
    ]


async def test_call_is_announced_before_the_tool_returns(harness: AgentHarness) -> None:
    """It is announced after the text before it."""
    harness.tools.held_until = Event()
    harness.model.script += [calls(NOTE, saying=("Well,",)), says("Noted.")]
    turn, text = harness.agent.run(harness.agent_run()), ""
    async for event in turn:
        if isinstance(event, ToolRequest):
            break
        text += event.text if isinstance(event, TextDelta) else ""
    results_by_then = [request.results for request in harness.model.requests]
    harness.tools.held_until.set()
    rest = [event.text async for event in turn if isinstance(event, TextDelta)]

    assert (text, results_by_then) == ("Well,", [[]])
    assert "".join(rest).strip() == "Noted."


async def test_tool_is_called_only_after_consumer_has_processed_the_request(
    direct_harness: AgentHarness,
) -> None:
    """The consumer has stored the request by then."""
    direct_harness.model.script += [calls(NOTE), says("Noted.")]
    turn = direct_harness.agent.run(direct_harness.agent_run())
    await first_request(turn)
    await run_other_tasks()
    before = list(direct_harness.tools.calls)
    rest = [event.text async for event in turn if isinstance(event, TextDelta)]

    assert before == []
    assert len(direct_harness.tools.calls) == 1
    assert rest == ["Noted."]


async def test_return_event_comes_after_the_result_and_before_the_next_text(harness: AgentHarness) -> None:
    """Also for a call that failed."""
    outcome = await harness.run_turn(calls(NOTE, ("fail", "{}")), calls(NOTE, saying=("Again:",)), says("Noted."))
    events = [event for event in outcome.events if not isinstance(event, Usage)]
    first, second, third = (request.call_id for request in outcome.requests)
    returns = [event.call_id for event in events if isinstance(event, ToolReturned)]

    assert returns == [first, second, third]
    assert all(events.index(ToolReturned(request.call_id)) > events.index(request) for request in outcome.requests)
    assert events.index(ToolReturned(second)) < events.index(TextDelta("Again:"))
    assert events.index(ToolReturned(third)) > events.index(TextDelta("Again:"))


async def test_running_call_has_no_return_event(harness: AgentHarness) -> None:
    harness.tools.held_until = Event()
    harness.model.script += [calls(NOTE), says("Noted.")]
    turn = harness.agent.run(harness.agent_run())
    request = await first_request(turn)
    following = asyncio.ensure_future(anext(turn))
    await harness.tools.reached.wait()
    events = [await following] if following.done() else []
    harness.tools.held_until.set()
    rest = [*events, *([] if events else [await following]), *[event async for event in turn]]

    assert ToolReturned(request.call_id) not in events
    assert rest.count(ToolReturned(request.call_id)) == 1


async def test_call_with_unknown_effect_has_no_return_event(harness: AgentHarness) -> None:
    outcome = await harness.run_turn(calls(("crash", "{}")), says("Never sent."))

    assert len(outcome.requests) == 1
    assert not [event for event in outcome.events if isinstance(event, ToolReturned)]


async def test_several_calls_are_announced_once_each_in_order(harness: AgentHarness, adapter: Adapter) -> None:
    requested = [("note", json.dumps({"text": str(number)})) for number in range(4)]
    outcome = await harness.run_turn(calls(*requested), calls(NOTE), says("All noted."))

    assert announced_calls(outcome) == received_calls(harness, adapter)
    assert [arguments for *_, arguments in announced_calls(outcome)] == [{"text": text} for text in (*"0123", "milk")]
    assert len({call_id for call_id, *_ in announced_calls(outcome)}) == 5


async def test_call_that_its_tool_refuses_is_announced_if_it_is_made(harness: AgentHarness, adapter: Adapter) -> None:
    outcome = await harness.run_turn(calls(("note", '{"wrong":[1]}')), calls(("fail", "{}")), says("I give up."))

    assert outcome.text == "I give up."
    assert announced_calls(outcome) == received_calls(harness, adapter)


@pytest.mark.parametrize(
    "call",
    [("drop_database", "{}"), ("mcp__latchkey__note", "{}")],
    ids=["a tool that the model invents", "a name that is not the tool's own"],
)
async def test_call_that_is_not_made_is_not_announced(harness: AgentHarness, call: tuple[str, str]) -> None:
    outcome = await harness.run_turn(calls(call), says("I give up."))

    assert outcome.text == "I give up."
    assert (outcome.requests, harness.tools.calls) == ([], [])


UNREADABLE = [
    '{"text": "mi',
    '{"text":"a"}{"text":"a"}',
    '"{\\"text\\":1}"',
    "[1]",
    '"milk"',
    "null",
    "7",
    '{"text":NaN}',
]


@pytest.mark.parametrize("arguments", UNREADABLE)
async def test_unreadable_arguments_are_recorded_reported_to_the_model_and_sent_back_as_an_object(
    direct_harness: AgentHarness, arguments: str
) -> None:
    """The call is made with an argument that no tool has, so that it is recorded and has no effect."""
    outcome = await direct_harness.run_turn(calls(("note", arguments)), says("I give up."))
    _, call, result = direct_harness.model.requests[1].conversation[1:]

    assert outcome.text == "I give up."
    assert [call.arguments for call in direct_harness.tools.calls] == [{"unreadable_arguments": arguments}]
    assert [arguments for *_, arguments in announced_calls(outcome)] == [{"unreadable_arguments": arguments}]
    assert call[3] == "{}"
    assert "nothing was done" in result[2]


async def test_blank_arguments_are_an_empty_object(direct_harness: AgentHarness) -> None:
    await direct_harness.run_turn(calls(("note", " ")), says("I give up."))

    assert [call.arguments for call in direct_harness.tools.calls] == [{}]
    assert direct_harness.model.requests[1].conversation[2][3] == "{}"


CALL_IDS = pytest.mark.parametrize(
    "call_id", ["", "x" * 300, "a\0b", "half \ud800"], ids=["empty", "long", "NUL", "surrogate"]
)


@CALL_IDS
async def test_call_with_an_id_that_cannot_be_stored_never_loses_the_call(
    harness: AgentHarness, adapter: Adapter, call_id: str
) -> None:
    """The turn ends with an answer or with a bad response of the model; an announced id can be stored."""
    outcome = await harness.run_turn(with_call_id(call_id, calls(NOTE), adapter), says("Noted."))

    assert call_id not in [request.call_id for request in outcome.requests]
    assert outcome.text == "Noted." or isinstance(outcome.failure, ModelBadResponse), outcome.failure


@CALL_IDS
async def test_call_with_an_id_that_cannot_be_stored_gets_another_id(
    direct_harness: AgentHarness, direct_adapter: Adapter, call_id: str
) -> None:
    outcome = await direct_harness.run_turn(with_call_id(call_id, calls(NOTE), direct_adapter), says("Noted."))
    (announced,) = announced_calls(outcome)

    assert [announced] == received_calls(direct_harness, direct_adapter)
    assert direct_harness.model.requests[1].conversation[2][1] == announced[0]


async def test_call_id_that_is_used_again_in_the_turn_gets_another_id(
    direct_harness: AgentHarness, direct_adapter: Adapter
) -> None:
    answer = with_call_id("call_0", calls(NOTE, NOTE), direct_adapter)
    outcome = await direct_harness.run_turn(answer, answer, says("Noted."))

    assert len({call_id for call_id, *_ in announced_calls(outcome)}) == 4
    assert announced_calls(outcome) == received_calls(direct_harness, direct_adapter)


async def test_call_id_of_maximum_length_is_announced(harness: AgentHarness, adapter: Adapter) -> None:
    outcome = await harness.run_turn(with_call_id("x" * 255, calls(NOTE), adapter), says("Noted."))

    assert [call_id for call_id, *_ in announced_calls(outcome)] == ["x" * 255]
    assert announced_calls(outcome) == received_calls(harness, adapter)


@pytest.mark.parametrize(
    ("arguments", "announced"),
    [
        pytest.param('{"text":1e999}', {"text": None}, id="infinity"),
        pytest.param('{"text":"a\\u0000b"}', {"text": "a\0b"}, id="NUL"),
    ],
)
async def test_arguments_that_cannot_be_stored_are_announced_as_nearest_json(
    direct_harness: AgentHarness, arguments: str, announced: object
) -> None:
    """The tool is called and reports what is wrong; the turn continues."""
    outcome = await direct_harness.run_turn(calls(("note", arguments)), says("Noted."))

    assert [arguments for *_, arguments in announced_calls(outcome)] == [announced]
    assert outcome.text == "Noted."


DEEP = 900
UNENCODABLE = {
    "lone surrogate": '{"text":"half \\ud83d"}',
    "nested too deeply": '{"text":' * DEEP + "{}" + "}" * DEEP,
    "both": '{"half":"\\ud83d","text":' * DEEP + "{}" + "}" * DEEP,
}


@pytest.mark.parametrize("arguments", UNENCODABLE.values(), ids=UNENCODABLE)
async def test_arguments_that_cannot_be_encoded_are_bad_response(direct_harness: AgentHarness, arguments: str) -> None:
    """No tool is called. The failure blames the model, and is not an internal error."""
    outcome = await direct_harness.run_turn(calls(("note", arguments)), says("Never sent."))

    assert isinstance(outcome.failure, ModelBadResponse)
    assert (outcome.requests, direct_harness.tools.calls) == ([], [])


async def test_turn_closed_before_request_is_processed_calls_no_tool(
    direct_harness: AgentHarness,
) -> None:
    before = asyncio.all_tasks()
    direct_harness.model.script += [calls(NOTE), says("Never sent.")]
    turn = direct_harness.agent.run(direct_harness.agent_run())
    await first_request(turn)
    await run_other_tasks()

    await turn.aclose()

    async with asyncio.timeout(5):
        while left := asyncio.all_tasks() - before:
            await asyncio.wait(left, timeout=0.01)
    assert direct_harness.tools.calls == []
    assert direct_harness.tools.open_connections == 0
    assert len(direct_harness.model.requests) == 1


async def test_turn_cancelled_while_request_is_stored_ends_cancelled(
    harness: AgentHarness,
) -> None:
    """The consumer is waiting for a database."""
    before = asyncio.all_tasks()
    harness.model.script += [calls(NOTE), says("Never sent.")]
    is_storing = Event()

    async def consume() -> None:
        turn = harness.agent.run(harness.agent_run())
        try:
            await first_request(turn)
            is_storing.set()
            await Event().wait()
        finally:
            await turn.aclose()

    consumer = asyncio.create_task(consume())
    await is_storing.wait()
    consumer.cancel()
    with pytest.raises(asyncio.CancelledError):
        await consumer

    async with asyncio.timeout(5):
        while left := asyncio.all_tasks() - before:
            await asyncio.wait(left, timeout=0.01)
    assert harness.tools.open_connections == 0
