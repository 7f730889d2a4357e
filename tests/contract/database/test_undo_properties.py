"""A property of undo: whatever the tools of a turn did, the state after an undo is the state before the turn.

If something was changed since, nothing is undone.
"""

from collections.abc import AsyncIterator
from random import Random
from typing import Any

import pytest
from msgspec.structs import asdict

from latchkey.application import artifacts, tasks
from latchkey.application.dispatcher import Dispatcher
from latchkey.domain.artifact import NewArtifact
from latchkey.domain.credentials import Owner
from latchkey.domain.task import NewTask, TaskChanges
from latchkey.domain.undo import NotUndoable
from latchkey.infrastructure.database.app_schema import AppSchema
from latchkey.infrastructure.database.sql.engine import create_engine
from latchkey.infrastructure.database.unit_of_work import SqlUnitsOfWork
from latchkey.notes.note import NewNote, NoteChanges, notes
from latchkey.notes.use_cases import forget, recall, remember, update_note
from tests.contract.database.undone_turn import UndoneTurn, read_artifacts, read_tasks

CALLS_PER_TURN = 12
SEEDS = range(8)
SET_ANEW = {"version", "updated_at", "turn_id"}
TEXTS = ["Milk", "Tee und Brot", "牛乳 \U0001f95b", "x" * 300]


class RandomTurn:
    """A turn that makes random tool calls. `random` decides all."""

    def __init__(self, turn: UndoneTurn, seed: int) -> None:
        self.turn = turn
        self.random = Random(seed)  # noqa: S311 - a test

    async def state(self) -> dict[Any, dict[str, Any]]:
        """All entities without the values that an undo changes itself."""
        turn = self.turn
        found: list[Any] = [
            *(await read_tasks(turn.dispatcher, turn.owner)).values(),
            *(await read_artifacts(turn.dispatcher, turn.owner)).values(),
            *(await turn.own(recall, "", 200)).items,
        ]
        return {
            entity.id: {name: value for name, value in asdict(entity).items() if name not in SET_ANEW}
            for entity in found
        }

    async def prepare(self) -> None:
        """Add entities as the user."""
        for text in TEXTS:
            await self.turn.add_task(f"{text} {self.random.random()}", description=text)
            await self.turn.own(remember, NewNote(text))
            new = NewArtifact(text[:200], text, conversation_id=self.turn.conversation_id)
            await self.turn.own(artifacts.add_artifact, new)

    async def call_any(self) -> None:
        """Make one random tool call, on a random entity that exists."""
        turn, choose = self.turn, self.random.choice
        id: Any
        text = choose(TEXTS)
        calls: list[tuple[Any, ...]] = [(tasks.add_task, NewTask(f"{text} {self.random.random()}"[:200]))]
        calls += [(remember, NewNote(text)), (artifacts.save_artifact, text[:200], text)]
        if found := [*(await read_tasks(turn.dispatcher, turn.owner)).values()]:
            id = choose(found).id
            changes = TaskChanges(title=f"{text} {self.random.random()}"[:200], description=choose([None, text]))
            calls += [(tasks.complete_task, id), (tasks.delete_task, id), (tasks.update_task, id, changes)]
            calls += [(tasks.update_task, id, TaskChanges(status="pending"))]
        if recalled := (await turn.own(recall, "", 200)).items:
            id = choose(recalled).id
            calls += [(forget, id), (update_note, id, NoteChanges(text=text))]
        if documents := [*await read_artifacts(turn.dispatcher, turn.owner)]:
            id = choose(documents)
            calls += [(artifacts.save_artifact, text[:200], text, id), (artifacts.delete_artifact, id)]
        use_case, *args = choose(calls)
        await turn.call(use_case, *args)


@pytest.fixture
async def dispatcher(shared_database_url: str) -> AsyncIterator[Dispatcher]:
    """With the entities of the built-in app."""
    engine = create_engine(shared_database_url)
    yield Dispatcher(SqlUnitsOfWork(engine, schema=AppSchema(entities=(notes,))), lambda _call: None)
    await engine.dispose()


@pytest.fixture(params=SEEDS)
async def random_turn(request: pytest.FixtureRequest, dispatcher: Dispatcher, me: Owner) -> RandomTurn:
    return RandomTurn(await UndoneTurn.start(dispatcher, me, grants=[*ALL]), request.param)


ALL: list[Any] = ["tasks:read", "tasks:write", "artifacts:read", "artifacts:write", "notes:read", "notes:write"]


async def test_undo_of_random_calls_restores_the_state_before(random_turn: RandomTurn) -> None:
    turn = random_turn.turn
    await random_turn.prepare()
    before = await random_turn.state()
    for _ in range(CALLS_PER_TURN):
        await random_turn.call_any()
    await turn.finish()
    await turn.undo()

    assert await random_turn.state() == before


async def test_undo_of_random_calls_with_a_change_since_changes_nothing(random_turn: RandomTurn) -> None:
    turn = random_turn.turn
    await random_turn.prepare()
    for _ in range(CALLS_PER_TURN):
        await random_turn.call_any()
    added = await turn.call(tasks.add_task, NewTask("Changed since"))
    await turn.finish()
    await turn.own(tasks.complete_task, added.id)
    after = await random_turn.state()

    with pytest.raises(NotUndoable):
        await turn.undo()
    assert await random_turn.state() == after
