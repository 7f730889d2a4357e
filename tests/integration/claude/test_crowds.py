"""Many turns at once: only so many processes work, and the others wait for a place."""

import asyncio
from asyncio import Event
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.fakes.model_script import says
from tests.integration.claude.scene import Scene, a_scene
from tests.integration.claude.test_traces import until

PLACES = 2


@pytest.fixture
async def scene(folder: Path) -> AsyncIterator[Scene]:
    async with a_scene(folder, at_once=PLACES) as scene:
        yield scene


async def test_eight_turns_at_once_share_the_places_and_all_finish(scene: Scene) -> None:
    rest = Event()
    scene.model.script += [says("Hel", "lo.").held(rest)] * 8
    turns = [asyncio.ensure_future(scene.play()) for _ in range(8)]
    await until(lambda: len(scene.model.requests) == PLACES)
    most = 0

    async def count() -> None:
        nonlocal most
        while not all(turn.done() for turn in turns):
            most = max(most, len(scene.homes))
            await asyncio.sleep(0.01)

    rest.set()
    await count()

    assert [turn.result().text for turn in turns] == ["Hello."] * 8
    assert most == PLACES


async def test_who_waits_for_a_place_and_leaves_starts_nothing(scene: Scene) -> None:
    scene.model.script += [says("Hel", "lo.").held(Event())] * 3
    turns = [asyncio.ensure_future(scene.play()) for _ in range(3)]
    await until(lambda: len(scene.model.requests) == PLACES)

    turns[2].cancel()
    await asyncio.wait({turns[2]})
    assert len(scene.homes) == PLACES

    await scene.agent.aclose()
    await asyncio.wait(turns)
    assert len(scene.model.requests) == PLACES


async def test_a_place_is_free_again_however_a_turn_ends(scene: Scene) -> None:
    for _ in range(PLACES + 1):
        turn = scene.agent.run(scene.agent_run())
        scene.model.script.append(says("Hel", "lo.").held(Event()))
        await anext(turn)
        await turn.aclose()

    assert (await scene.play(says("Hello."))).text == "Hello."
