"""Undo of what is no longer as a tool call has left it, or as a record of another release has it."""

from collections.abc import Callable
from typing import Any

import msgspec
import pytest
from sqlalchemy import select, update

from latchkey.application.access import owner_only
from latchkey.application.artifacts import delete_artifact, save_artifact
from latchkey.application.deletion import delete_and_remove, delete_conversation, remove_deleted
from latchkey.application.dispatcher import Dispatcher
from latchkey.application.tasks import add_task, complete_task, delete_task, get_task, update_task
from latchkey.application.turns.record import renew_turn
from latchkey.domain.artifact import ArtifactReference
from latchkey.domain.credentials import Owner
from latchkey.domain.errors import TurnLost
from latchkey.domain.task import NewTask, TaskChanges
from latchkey.domain.undo import NotUndoable
from latchkey.infrastructure.database.schema import tool_calls
from latchkey.infrastructure.database.sql.session import owned_by_user
from tests.contract.database.running_turn import PAST_LEASE
from tests.contract.database.undone_turn import UndoneTurn

CHANGES = select(tool_calls.c.changes).where(owned_by_user(tool_calls))
SET_CHANGES = update(tool_calls).where(owned_by_user(tool_calls))


@pytest.fixture
async def turn(dispatcher: Dispatcher, me: Owner) -> UndoneTurn:
    return await UndoneTurn.start(dispatcher, me)


async def reasons(turn: UndoneTurn) -> list[tuple[str | None, Any, str]]:
    """Try to undo the turn: return why it cannot be."""
    with pytest.raises(NotUndoable) as error:
        await turn.undo()
    conflicts: Any = error.value.members["conflicts"]
    return [(conflict.kind, conflict.id, conflict.reason) for conflict in conflicts]


async def edit_change(turn: UndoneTurn, edit: Callable[[dict[str, Any]], None]) -> None:
    """Edit the record of the only change, as if another release had written it."""

    @owner_only("write")
    async def edit_record(uow: Any) -> None:
        ((changes,),) = await uow.session.fetch(CHANGES)
        (change,) = msgspec.json.decode(changes)
        edit(change)
        await uow.session.execute(SET_CHANGES, changes=msgspec.json.encode([change]).decode())

    await turn.own(edit_record)


async def test_undo_of_a_lost_turn_is_refused(turn: UndoneTurn) -> None:
    """The dispatcher's callers then continue or end the turn."""
    await turn.own(renew_turn, turn.id, PAST_LEASE)
    with pytest.raises(TurnLost):
        await turn.undo()


async def test_undo_of_two_changes_of_a_task_that_was_changed_since_lists_it_once(turn: UndoneTurn) -> None:
    task = await turn.add_task()
    await turn.call(update_task, task.id, TaskChanges(title="Oat milk"))
    await turn.call(complete_task, task.id)
    await turn.finish()
    await turn.own(update_task, task.id, TaskChanges(title="Changed"))

    assert await reasons(turn) == [("tasks", task.id, "changed")]


async def test_undo_of_a_document_that_was_deleted_since_is_a_conflict(turn: UndoneTurn) -> None:
    """Also once it is removed."""
    saved: ArtifactReference = await turn.call(save_artifact, "Brief", "# One")
    await turn.finish()
    await turn.own(delete_artifact, saved.id)
    assert await reasons(turn) == [("artifacts", saved.id, "deleted")]

    while await turn.own(remove_deleted):
        pass
    assert await reasons(turn) == [("artifacts", saved.id, "deleted")]


async def test_undo_of_a_deleted_task_whose_conversation_was_deleted_since_restores_it_without_one(
    turn: UndoneTurn,
) -> None:
    task = await turn.call(add_task, NewTask("Milk"))
    await turn.finish()
    other = await UndoneTurn.start(turn.dispatcher, turn.owner)
    await other.call(delete_task, task.id)
    await other.finish()
    await delete_and_remove(turn.dispatcher, turn.owner, delete_conversation, turn.conversation_id)
    await other.undo()

    assert task.conversation_id == turn.conversation_id
    assert (await turn.own(get_task, task.id)).conversation_id is None


async def test_undo_of_a_change_of_an_entity_that_is_no_longer_registered_is_a_conflict(turn: UndoneTurn) -> None:
    task = await turn.add_task()
    await turn.call(complete_task, task.id)
    await turn.finish()
    await edit_change(turn, lambda change: change.update(table="bicycles"))

    assert await reasons(turn) == [("bicycles", task.id, "not-recorded")]


@pytest.mark.parametrize(
    "values", [{"colour": "red"}, {"completed_at": "never"}], ids=["unknown column", "unknown value"]
)
async def test_undo_of_a_record_that_does_not_fit_its_table_is_a_conflict(
    turn: UndoneTurn, values: dict[str, Any]
) -> None:
    task = await turn.add_task()
    await turn.call(complete_task, task.id)
    await turn.finish()
    await edit_change(turn, lambda change: change["before"].update(values))

    assert await reasons(turn) == [("tasks", task.id, "not-recorded")]
