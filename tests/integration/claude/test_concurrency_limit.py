"""Many turns at once: only so many processes work, and the others wait for a place."""

import asyncio
from asyncio import Event
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.fakes.model_script import says
from tests.integration.claude.claude_harness import ClaudeHarness, claude_harness
from tests.integration.claude.test_cleanup import until

PLACES = 2


@pytest.fixture
async def harness(folder: Path) -> AsyncIterator[ClaudeHarness]:
    async with claude_harness(folder, max_processes=PLACES) as harness:
        yield harness


async def test_concurrent_turns_share_the_process_slots_and_all_finish(harness: ClaudeHarness) -> None:
    rest = Event()
    harness.model.script += [says("Hel", "lo.").held(rest)] * 8
    turns = [asyncio.ensure_future(harness.run_turn()) for _ in range(8)]
    await until(lambda: len(harness.model.requests) == PLACES)
    most = 0

    async def count() -> None:
        nonlocal most
        while not all(turn.done() for turn in turns):
            most = max(most, len(harness.workspaces))
            await asyncio.sleep(0.01)

    rest.set()
    await count()

    assert [turn.result().text for turn in turns] == ["Hello."] * 8
    assert most == PLACES


async def test_turn_cancelled_while_it_waits_for_a_slot_starts_no_process(harness: ClaudeHarness) -> None:
    harness.model.script += [says("Hel", "lo.").held(Event())] * 3
    turns = [asyncio.ensure_future(harness.run_turn()) for _ in range(3)]
    await until(lambda: len(harness.model.requests) == PLACES)

    turns[2].cancel()
    await asyncio.wait({turns[2]})
    assert len(harness.workspaces) == PLACES

    await harness.agent.aclose()
    await asyncio.wait(turns)
    assert len(harness.model.requests) == PLACES


async def test_process_slot_is_released_however_a_turn_ends(harness: ClaudeHarness) -> None:
    for _ in range(PLACES + 1):
        turn = harness.agent.run(harness.agent_run())
        harness.model.script.append(says("Hel", "lo.").held(Event()))
        await anext(turn)
        await turn.aclose()

    assert (await harness.run_turn(says("Hello."))).text == "Hello."
