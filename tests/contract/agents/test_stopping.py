"""Closing the iterator stops the agent, wherever it is, and leaves nothing running."""

import asyncio
from asyncio import Event, all_tasks, wait_for
from collections.abc import AsyncGenerator

import pytest

from latchkey.domain.agent import AgentEvent, TextDelta
from tests.contract.agents.stage import Stage
from tests.fakes.model_script import calls, says

PATIENCE_S = 5


def run(stage: Stage) -> AsyncGenerator[AgentEvent, None]:
    return stage.agent.run(stage.agent_run())


async def at_rest(before: set[asyncio.Task[object]]) -> None:
    """Nothing runs that did not run before; what is just ending may end."""
    async with asyncio.timeout(PATIENCE_S):
        while left := all_tasks() - before:
            await asyncio.wait(left, timeout=0.01)


async def test_closing_in_the_middle_of_an_answer_ends_the_request(stage: Stage) -> None:
    before = all_tasks()
    stage.model.script += [says("One, ", "two").held(Event()), says("Never said.")]
    turn = run(stage)
    assert await anext(turn) == TextDelta("One, ")

    await turn.aclose()

    await wait_for(stage.model.requests[0].gone.wait(), PATIENCE_S)
    await at_rest(before)
    assert len(stage.model.requests) == 1
    assert stage.tools.open_connections == 0


async def test_closing_between_steps_asks_the_model_no_more(stage: Stage) -> None:
    before = all_tasks()
    stage.model.script += [calls(("note", '{"text":"milk"}'), saying=("Well, ",)), says("Never said.").held(Event())]
    turn = run(stage)
    assert await anext(turn) == TextDelta("Well, ")

    await turn.aclose()

    await at_rest(before)
    assert stage.tools.open_connections == 0
    assert len(stage.model.requests) <= 2


async def test_closing_while_a_tool_works_stops_the_turn(stage: Stage) -> None:
    """The consumer waits for the tool when it is cancelled, as a cancelled turn's does."""
    before = all_tasks()
    stage.tools.held_until = Event()
    stage.model.script += [calls(("note", '{"text":"milk"}')), says("Never said.")]
    consumer = asyncio.ensure_future(stage.play())
    await wait_for(stage.tools.reached.wait(), PATIENCE_S)

    consumer.cancel()
    with pytest.raises(asyncio.CancelledError):
        await consumer

    await at_rest(before)
    assert len(stage.model.requests) == 1
    assert stage.tools.open_connections == 0


async def test_a_deadline_around_the_turn_holds(stage: Stage) -> None:
    before = all_tasks()
    stage.model.script.append(says("One, ", "two").held(Event()))

    async def until_told() -> None:
        async with asyncio.timeout(None) as deadline:
            async for _ in run(stage):
                deadline.reschedule(0)

    with pytest.raises(TimeoutError):
        await until_told()

    await wait_for(stage.model.requests[0].gone.wait(), PATIENCE_S)
    await at_rest(before)


async def test_a_turn_that_nobody_starts_asks_nobody(stage: Stage) -> None:
    before = all_tasks()
    await run(stage).aclose()

    assert all_tasks() == before
    assert stage.tools.tokens == []


async def test_a_slow_reader_holds_the_turn_back(direct_stage: Stage) -> None:
    """What the model says waits for whoever reads it: it is not piled up without a bound."""
    direct_stage.model.script.append(calls(("note", '{"text":"milk"}'), saying=("word ",) * 500))
    turn = run(direct_stage)
    await anext(turn)
    for _ in range(2_000):
        await asyncio.sleep(0)

    assert direct_stage.tools.calls == []
    await turn.aclose()


async def test_a_turn_that_ended_by_itself_leaves_nothing_running(stage: Stage) -> None:
    before = all_tasks()
    await stage.play(calls(("note", '{"text":"milk"}')), says("Noted."))
    await stage.play(says("Hal").cut())

    await at_rest(before)
