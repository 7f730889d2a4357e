"""An agent tells of a tool call before it makes it: which tool, with what, and under which id."""

import asyncio
import json
import re
from asyncio import Event
from collections.abc import AsyncGenerator

import msgspec
import pytest

from latchkey.domain.agent import AgentEvent, TextDelta, ToolRequest, ToolReturned
from latchkey.domain.errors import ModelBadResponse
from latchkey.domain.turn import Usage
from tests.contract.agents.agent_harness import Adapter, AgentHarness, RecordedTurn
from tests.fakes.model_script import Answer, Reply, calls, says

NOTE = ("note", '{"text":"milk"}')
IDS = re.compile(rb"(call|toolu)_[0-9a-f]{32}")
LONG_ENOUGH = 200


def announced(outcome: RecordedTurn) -> list[tuple[str, str, object]]:
    return [(one.call_id, one.name, msgspec.json.decode(one.arguments)) for one in outcome.requests]


def arrived(harness: AgentHarness, adapter: Adapter) -> list[tuple[str, str, object]]:
    return [(call.meta[adapter.call_id], call.name, call.arguments) for call in harness.tools.calls]


def under(call_id: str, answer: Answer, adapter: Adapter) -> Reply:
    """The answer, its call under that id."""
    said, end = adapter.wire(answer)
    given = json.dumps(call_id)[1:-1].encode()
    return Reply(200, IDS.sub(lambda _: given, b"".join([*said, *end])), "text/event-stream")


async def up_to_a_request(turn: AsyncGenerator[AgentEvent, None]) -> ToolRequest:
    """What comes before it has been taken, and nobody has come back for more since."""
    async for event in turn:
        if isinstance(event, ToolRequest):
            return event
    raise AssertionError("The turn ended without a request.")


async def others_to_work() -> None:
    """Let everybody go as far as they can without us."""
    for _ in range(LONG_ENOUGH):
        await asyncio.sleep(0)


async def test_announced_call_equals_the_call_that_arrives(harness: AgentHarness, adapter: Adapter) -> None:
    """By the tool's own name, with the arguments and under the id that come with it."""
    outcome = await harness.run_turn(calls(("note", '{"due":null,"text":"ünï 🚀"}'), saying=("Well,",)), says("Noted."))

    assert announced(outcome) == arrived(harness, adapter)
    assert [(name, given) for _, name, given in announced(outcome)] == [("note", {"due": None, "text": "ünï 🚀"})]


async def test_call_is_announced_before_the_tool_returns(harness: AgentHarness) -> None:
    """And after what was said before."""
    harness.tools.held_until = Event()
    harness.model.script += [calls(NOTE, saying=("Well,",)), says("Noted.")]
    turn, said = harness.agent.run(harness.agent_run()), ""
    async for event in turn:
        if isinstance(event, ToolRequest):
            break
        said += event.text if isinstance(event, TextDelta) else ""
    results_by_then = [request.results for request in harness.model.requests]
    harness.tools.held_until.set()
    rest = [event.text async for event in turn if isinstance(event, TextDelta)]

    assert (said, results_by_then) == ("Well,", [[]])
    assert "".join(rest).strip() == "Noted."


async def test_tool_is_called_only_after_consumer_has_processed_the_request(
    direct_harness: AgentHarness,
) -> None:
    """Who listens has written it down by then."""
    direct_harness.model.script += [calls(NOTE), says("Noted.")]
    turn = direct_harness.agent.run(direct_harness.agent_run())
    await up_to_a_request(turn)
    await others_to_work()
    before = list(direct_harness.tools.calls)
    rest = [event.text async for event in turn if isinstance(event, TextDelta)]

    assert before == []
    assert len(direct_harness.tools.calls) == 1
    assert rest == ["Noted."]


async def test_return_event_comes_after_the_result_and_before_the_next_text(harness: AgentHarness) -> None:
    """Also of one that failed."""
    outcome = await harness.run_turn(calls(NOTE, ("fail", "{}")), calls(NOTE, saying=("Again:",)), says("Noted."))
    told = [event for event in outcome.events if not isinstance(event, Usage)]
    first, second, third = (request.call_id for request in outcome.requests)
    returns = [event.call_id for event in told if isinstance(event, ToolReturned)]

    assert returns == [first, second, third]
    assert all(told.index(ToolReturned(request.call_id)) > told.index(request) for request in outcome.requests)
    assert told.index(ToolReturned(second)) < told.index(TextDelta("Again:"))
    assert told.index(ToolReturned(third)) > told.index(TextDelta("Again:"))


async def test_running_call_has_no_return_event(harness: AgentHarness) -> None:
    harness.tools.held_until = Event()
    harness.model.script += [calls(NOTE), says("Noted.")]
    turn = harness.agent.run(harness.agent_run())
    request = await up_to_a_request(turn)
    following = asyncio.ensure_future(anext(turn))
    await harness.tools.reached.wait()
    told = [await following] if following.done() else []
    harness.tools.held_until.set()
    rest = [*told, *([] if told else [await following]), *[event async for event in turn]]

    assert ToolReturned(request.call_id) not in told
    assert rest.count(ToolReturned(request.call_id)) == 1


async def test_call_with_unknown_effect_has_no_return_event(harness: AgentHarness) -> None:
    outcome = await harness.run_turn(calls(("crash", "{}")), says("Never said."))

    assert len(outcome.requests) == 1
    assert not [event for event in outcome.events if isinstance(event, ToolReturned)]


async def test_several_calls_are_announced_once_each_in_order(harness: AgentHarness, adapter: Adapter) -> None:
    asked = [("note", json.dumps({"text": str(number)})) for number in range(4)]
    outcome = await harness.run_turn(calls(*asked), calls(NOTE), says("All noted."))

    assert announced(outcome) == arrived(harness, adapter)
    assert [given for *_, given in announced(outcome)] == [{"text": text} for text in (*"0123", "milk")]
    assert len({call_id for call_id, *_ in announced(outcome)}) == 5


async def test_call_that_its_tool_refuses_is_announced_if_it_is_made(harness: AgentHarness, adapter: Adapter) -> None:
    outcome = await harness.run_turn(calls(("note", '{"wrong":[1]}')), calls(("fail", "{}")), says("I give up."))

    assert outcome.text == "I give up."
    assert announced(outcome) == arrived(harness, adapter)


@pytest.mark.parametrize(
    "asked",
    [("drop_database", "{}"), ("mcp__latchkey__note", "{}"), ("note", '{"text": "mi')],
    ids=["a tool that the model invents", "a name that is not the tool's own", "arguments that are no JSON"],
)
async def test_call_that_is_not_made_is_not_announced(harness: AgentHarness, asked: tuple[str, str]) -> None:
    outcome = await harness.run_turn(calls(asked), says("I give up."))

    assert outcome.text == "I give up."
    assert (outcome.requests, harness.tools.calls) == ([], [])


@pytest.mark.parametrize("arguments", ["[1]", '"milk"', "null", "7"])
async def test_call_with_arguments_that_are_not_an_object_is_not_announced(
    direct_harness: AgentHarness, arguments: str
) -> None:
    outcome = await direct_harness.run_turn(calls(("note", arguments)), says("I give up."))

    assert outcome.text == "I give up."
    assert (outcome.requests, direct_harness.tools.calls) == ([], [])


@pytest.mark.parametrize("call_id", ["", "x" * 300, "a\0b", "half \ud800"], ids=["empty", "long", "NUL", "surrogate"])
async def test_call_with_an_id_that_cannot_be_stored_is_not_announced(
    harness: AgentHarness, adapter: Adapter, call_id: str
) -> None:
    """What comes of it is an answer, or a model that is to blame."""
    outcome = await harness.run_turn(under(call_id, calls(NOTE), adapter), says("Noted."))

    assert outcome.requests == []
    assert outcome.text == "Noted." or isinstance(outcome.failure, ModelBadResponse), outcome.failure


async def test_call_id_of_maximum_length_is_announced(harness: AgentHarness, adapter: Adapter) -> None:
    outcome = await harness.run_turn(under("x" * 255, calls(NOTE), adapter), says("Noted."))

    assert [call_id for call_id, *_ in announced(outcome)] == ["x" * 255]
    assert announced(outcome) == arrived(harness, adapter)


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        pytest.param('{"text":NaN}', {"text": None}, id="no number"),
        pytest.param('{"text":1e999}', {"text": None}, id="a number without end"),
        pytest.param('{"text":"a\\u0000b"}', {"text": "a\0b"}, id="NUL"),
    ],
)
async def test_arguments_that_cannot_be_stored_are_announced_as_nearest_json(
    direct_harness: AgentHarness, arguments: str, told: object
) -> None:
    """The tool is asked, and says what is wrong with it; the turn goes on."""
    outcome = await direct_harness.run_turn(calls(("note", arguments)), says("Noted."))

    assert [given for *_, given in announced(outcome)] == [told]
    assert outcome.text == "Noted."


DEEP = 900
HOPELESS = {
    "half a surrogate pair": '{"text":"half \\ud83d"}',
    "nested without end": '{"text":' * DEEP + "{}" + "}" * DEEP,
    "both": '{"half":"\\ud83d","text":' * DEEP + "{}" + "}" * DEEP,
}


@pytest.mark.parametrize("arguments", HOPELESS.values(), ids=HOPELESS)
async def test_arguments_that_cannot_be_encoded_are_bad_response(direct_harness: AgentHarness, arguments: str) -> None:
    """No tool is asked: the turn ends as a bad answer does, and not as a bug of ours."""
    outcome = await direct_harness.run_turn(calls(("note", arguments)), says("Never said."))

    assert isinstance(outcome.failure, ModelBadResponse)
    assert (outcome.requests, direct_harness.tools.calls) == ([], [])


async def test_turn_closed_before_request_is_processed_calls_no_tool(
    direct_harness: AgentHarness,
) -> None:
    before = asyncio.all_tasks()
    direct_harness.model.script += [calls(NOTE), says("Never said.")]
    turn = direct_harness.agent.run(direct_harness.agent_run())
    await up_to_a_request(turn)
    await others_to_work()

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
    """As a listener does that waits for a database."""
    before = asyncio.all_tasks()
    harness.model.script += [calls(NOTE), says("Never said.")]
    is_writing = Event()

    async def listen() -> None:
        turn = harness.agent.run(harness.agent_run())
        try:
            await up_to_a_request(turn)
            is_writing.set()
            await Event().wait()
        finally:
            await turn.aclose()

    listening = asyncio.create_task(listen())
    await is_writing.wait()
    listening.cancel()
    with pytest.raises(asyncio.CancelledError):
        await listening

    async with asyncio.timeout(5):
        while left := asyncio.all_tasks() - before:
            await asyncio.wait(left, timeout=0.01)
    assert harness.tools.open_connections == 0
