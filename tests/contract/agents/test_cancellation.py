"""Closing the iterator stops the agent, wherever it is, and leaves nothing running."""

import asyncio
from asyncio import Event, all_tasks, wait_for
from collections.abc import AsyncGenerator

import pytest

from latchkey.domain.agent import AgentEvent, TextDelta
from tests.contract.agents.agent_harness import AgentHarness
from tests.fakes.model_script import calls, says

TIMEOUT_S = 5


def run(harness: AgentHarness) -> AsyncGenerator[AgentEvent, None]:
    return harness.agent.run(harness.agent_run())


async def wait_for_no_new_tasks(before: set[asyncio.Task[object]]) -> None:
    """Wait until only the tasks of before are left."""
    async with asyncio.timeout(TIMEOUT_S):
        while left := all_tasks() - before:
            await asyncio.wait(left, timeout=0.01)


async def test_close_during_an_answer_disconnects_from_the_model(harness: AgentHarness) -> None:
    before = all_tasks()
    harness.model.script += [says("One, ", "two").held(Event()), says("Never sent.")]
    turn = run(harness)
    assert await anext(turn) == TextDelta("One, ")

    await turn.aclose()

    await wait_for(harness.model.requests[0].client_disconnected.wait(), TIMEOUT_S)
    await wait_for_no_new_tasks(before)
    assert len(harness.model.requests) == 1
    assert harness.tools.open_connections == 0


async def test_close_between_steps_sends_no_further_model_request(harness: AgentHarness) -> None:
    before = all_tasks()
    harness.model.script += [calls(("note", '{"text":"milk"}'), saying=("Well, ",)), says("Never sent.").held(Event())]
    turn = run(harness)
    assert await anext(turn) == TextDelta("Well, ")

    await turn.aclose()

    await wait_for_no_new_tasks(before)
    assert harness.tools.open_connections == 0
    assert len(harness.model.requests) <= 2


async def test_cancel_during_a_tool_call_stops_the_turn(harness: AgentHarness) -> None:
    """As in a cancelled turn: the consumer is waiting for the tool when it is cancelled."""
    before = all_tasks()
    harness.tools.held_until = Event()
    harness.model.script += [calls(("note", '{"text":"milk"}')), says("Never sent.")]
    consumer = asyncio.ensure_future(harness.run_turn())
    await wait_for(harness.tools.reached.wait(), TIMEOUT_S)

    consumer.cancel()
    with pytest.raises(asyncio.CancelledError):
        await consumer

    await wait_for_no_new_tasks(before)
    assert len(harness.model.requests) == 1
    assert harness.tools.open_connections == 0


async def test_timeout_around_a_turn_stops_it(harness: AgentHarness) -> None:
    before = all_tasks()
    harness.model.script.append(says("One, ", "two").held(Event()))

    async def run_until_first_event() -> None:
        async with asyncio.timeout(None) as deadline:
            async for _ in run(harness):
                deadline.reschedule(0)

    with pytest.raises(TimeoutError):
        await run_until_first_event()

    await wait_for(harness.model.requests[0].client_disconnected.wait(), TIMEOUT_S)
    await wait_for_no_new_tasks(before)


async def test_turn_that_is_never_iterated_does_nothing(harness: AgentHarness) -> None:
    before = all_tasks()
    await run(harness).aclose()

    assert all_tasks() == before
    assert harness.tools.tokens == []


async def test_slow_consumer_applies_back_pressure(direct_harness: AgentHarness) -> None:
    """The text of the model is not buffered without a limit."""
    direct_harness.model.script.append(calls(("note", '{"text":"milk"}'), saying=("word ",) * 500))
    turn = run(direct_harness)
    await anext(turn)
    for _ in range(2_000):
        await asyncio.sleep(0)

    assert direct_harness.tools.calls == []
    await turn.aclose()


async def test_finished_turn_leaves_no_tasks(harness: AgentHarness) -> None:
    before = all_tasks()
    await harness.run_turn(calls(("note", '{"text":"milk"}')), says("Noted."))
    await harness.run_turn(says("Hal").cut())

    await wait_for_no_new_tasks(before)
