"""The limit of concurrent CLI processes: further turns wait for a slot."""

import asyncio
from asyncio import Event
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.fakes.model_script import says
from tests.integration.claude.claude_harness import ClaudeHarness, claude_harness, wait_until_true

MAX_PROCESSES = 2


@pytest.fixture
async def harness(folder: Path) -> AsyncIterator[ClaudeHarness]:
    async with claude_harness(folder, max_processes=MAX_PROCESSES) as harness:
        yield harness


async def test_concurrent_turns_share_the_process_slots_and_all_finish(harness: ClaudeHarness) -> None:
    release = Event()
    harness.model.script += [says("Hel", "lo.").held(release)] * 8
    turns = [asyncio.ensure_future(harness.run_turn()) for _ in range(8)]
    await wait_until_true(lambda: len(harness.model.requests) == MAX_PROCESSES)
    max_workspaces = 0

    async def count_workspaces() -> None:
        nonlocal max_workspaces
        while not all(turn.done() for turn in turns):
            max_workspaces = max(max_workspaces, len(harness.workspaces))
            await asyncio.sleep(0.01)

    release.set()
    await count_workspaces()

    assert [turn.result().text for turn in turns] == ["Hello."] * 8
    assert max_workspaces == MAX_PROCESSES


async def test_turn_cancelled_while_it_waits_for_a_slot_starts_no_process(harness: ClaudeHarness) -> None:
    harness.model.script += [says("Hel", "lo.").held(Event())] * 3
    turns = [asyncio.ensure_future(harness.run_turn()) for _ in range(3)]
    await wait_until_true(lambda: len(harness.model.requests) == MAX_PROCESSES)

    turns[2].cancel()
    await asyncio.wait({turns[2]})
    assert len(harness.workspaces) == MAX_PROCESSES

    await harness.agent.aclose()
    await asyncio.wait(turns)
    assert len(harness.model.requests) == MAX_PROCESSES


async def test_process_slot_is_released_however_a_turn_ends(harness: ClaudeHarness) -> None:
    for _ in range(MAX_PROCESSES + 1):
        turn = harness.agent.run(harness.agent_run())
        harness.model.script.append(says("Hel", "lo.").held(Event()))
        await anext(turn)
        await turn.aclose()

    assert (await harness.run_turn(says("Hello."))).text == "Hello."
