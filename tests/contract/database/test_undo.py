"""Undo of a turn: what its tools changed is as it was before, or nothing is undone."""

from datetime import UTC, datetime
from typing import Any

import msgspec
import pytest
from msgspec import Raw
from msgspec.structs import asdict, replace
from sqlalchemy import null, update

from latchkey.application import artifacts, tasks
from latchkey.application.access import owner_only, requires
from latchkey.application.artifacts import delete_artifact, revise_artifact, save_artifact
from latchkey.application.dispatcher import Dispatcher
from latchkey.application.tasks import add_task, complete_task, delete_task, get_task, update_task
from latchkey.application.turns.record import EventBatch, append_events
from latchkey.application.turns.undo import undo_turn
from latchkey.domain.artifact import ArtifactReference, ArtifactRevision, NewArtifact
from latchkey.domain.credentials import TASKS_WRITE, Owner
from latchkey.domain.errors import Conflict, Forbidden, NotFound
from latchkey.domain.message import UNDONE
from latchkey.domain.page import Window
from latchkey.domain.ports import UnitOfWork
from latchkey.domain.task import NewTask, Task, TaskChanges
from latchkey.domain.tool_call import ToolRequest
from latchkey.domain.turn import Usage
from latchkey.domain.undo import NotUndoable, UndoConflict
from latchkey.infrastructure.database.schema import tool_calls
from latchkey.infrastructure.database.sql.session import owned_by_user
from tests.contract.database.undone_turn import UndoneTurn, read_artifacts, read_tasks

DUE = datetime(2027, 1, 2, 3, 4, 5, 678901, tzinfo=UTC)
NEW_VALUES = {"version", "updated_at"}


@pytest.fixture
async def turn(dispatcher: Dispatcher, me: Owner) -> UndoneTurn:
    return await UndoneTurn.start(dispatcher, me)


def values_of(task: Task) -> dict[str, Any]:
    """The values that an undo restores."""
    return {name: value for name, value in asdict(task).items() if name not in NEW_VALUES}


def conflicts_of(error: pytest.ExceptionInfo[NotUndoable]) -> list[tuple[str | None, Any, str]]:
    conflicts: Any = error.value.members["conflicts"]
    return [(conflict.kind, conflict.id, conflict.reason) for conflict in conflicts]


async def test_undo_of_an_added_task_deletes_it(turn: UndoneTurn) -> None:
    added = await turn.call(add_task, NewTask("Milk"))
    await turn.finish()
    assert (await turn.read()).can_undo

    undone = await turn.undo()

    assert undone.undone_at is not None
    assert not undone.can_undo
    assert undone == await turn.read()
    with pytest.raises(NotFound):
        await turn.own(get_task, added.id)


async def test_undo_of_a_completed_task_makes_it_pending_at_a_higher_version(turn: UndoneTurn) -> None:
    before = await turn.add_task(description="Two", due_at=DUE)
    await turn.call(complete_task, before.id)
    await turn.finish()
    await turn.undo()
    after = await turn.own(get_task, before.id)

    assert values_of(after) == values_of(before)
    assert (before.version, after.version, after.status, after.completed_at) == (1, 3, "pending", None)
    assert after.updated_at > before.updated_at


async def test_undo_of_a_deleted_task_creates_it_again_with_its_id(turn: UndoneTurn) -> None:
    before = await turn.add_task("Bröt \U0001f35e", description="Two", due_at=DUE)
    await turn.call(delete_task, before.id)
    await turn.finish()
    await turn.undo()
    after = await turn.own(get_task, before.id)

    assert values_of(after) == values_of(before)
    assert after.version == before.version + 1


async def test_undo_reverts_several_changes_of_one_task_newest_first(turn: UndoneTurn) -> None:
    before = await turn.add_task(description="Two")
    await turn.call(update_task, before.id, TaskChanges(title="Oat milk"))
    await turn.call(complete_task, before.id)
    await turn.call(update_task, before.id, TaskChanges(description=None, due_at=DUE))
    await turn.call(delete_task, before.id)
    added = await turn.call(add_task, NewTask("Tea"))
    await turn.call(complete_task, added.id)
    await turn.finish()
    await turn.undo()

    assert {title: values_of(task) for title, task in (await read_tasks(turn.dispatcher, turn.owner)).items()} == {
        "Milk": values_of(before)
    }


async def test_undo_of_a_saved_document_deletes_it_with_all_versions(turn: UndoneTurn) -> None:
    saved: ArtifactReference = await turn.call(save_artifact, "Brief", "# One")
    await turn.call(save_artifact, "Brief", "# Two", saved.id)
    await turn.finish()
    await turn.undo()

    assert await read_artifacts(turn.dispatcher, turn.owner) == {}
    with pytest.raises(NotFound):
        await turn.own(artifacts.get_artifact, saved.id, 1)


async def test_undo_of_a_revised_document_saves_the_earlier_version_again(turn: UndoneTurn) -> None:
    before = await turn.own(artifacts.add_artifact, NewArtifact("Brief", "# One", conversation_id=turn.conversation_id))
    await turn.call(save_artifact, "Longer brief", "# Two", before.id)
    await turn.call(save_artifact, "Longest brief", "# Three", before.id)
    await turn.finish()
    await turn.undo()
    after = await turn.own(artifacts.get_artifact, before.id)
    versions = await turn.own(artifacts.list_versions, before.id, Window())

    assert (after.title, after.content_markdown, after.version) == ("Brief", "# One", 5)
    assert [version.title for version in versions.items] == [
        "Brief",
        "Longer brief",
        "Longest brief",
        "Longer brief",
        "Brief",
    ]


async def test_undo_of_a_deleted_document_shows_it_again(turn: UndoneTurn) -> None:
    before = await turn.own(artifacts.add_artifact, NewArtifact("Brief", "# One", conversation_id=turn.conversation_id))
    await turn.call(delete_artifact, before.id)
    await turn.finish()
    await turn.undo()
    after = await turn.own(artifacts.get_artifact, before.id)

    assert (after.title, after.content_markdown, after.version) == ("Brief", "# One", 2)


async def test_undo_is_recorded_as_an_event_after_the_last_one(turn: UndoneTurn) -> None:
    kept = await turn.add_task()
    added = await turn.call(add_task, NewTask("Tea"))
    await turn.call(complete_task, kept.id)
    await turn.finish()
    calls = (await turn.read()).tool_calls
    await turn.undo()
    *_, final, undone = await turn.events()

    assert (final.name, undone.name, undone.seq) == ("turn.completed", "turn.undone", final.seq + 1)
    assert msgspec.json.decode(undone.body) == {
        "effects": [
            {
                "tool_call_id": str(calls[1].id),
                "kind": "tasks",
                "id": str(kept.id),
                "effect": "updated",
                "version": 3,
                "restored_version": 1,
            },
            {
                "tool_call_id": str(calls[0].id),
                "kind": "tasks",
                "id": str(added.id),
                "effect": "created",
                "version": None,
                "restored_version": None,
            },
        ]
    }
    assert await turn.events(final.seq) == [undone]
    assert await turn.events(undone.seq) == []


async def test_undo_is_idempotent(turn: UndoneTurn) -> None:
    await turn.call(add_task, NewTask("Milk"))
    await turn.finish()
    first = await turn.undo()
    events = await turn.events()

    assert await turn.undo() == first
    assert await turn.events() == events


async def test_undo_is_in_the_history_of_the_next_turn(turn: UndoneTurn) -> None:
    await turn.call(add_task, NewTask("Milk"))
    await turn.finish()
    cancelled = await UndoneTurn.start(turn.dispatcher, turn.owner, turn.conversation_id)
    await cancelled.call(add_task, NewTask("Tea"))
    await cancelled.cancel()
    await turn.undo()
    await cancelled.undo()
    following = await UndoneTurn.start(turn.dispatcher, turn.owner, turn.conversation_id)

    answers = [past.answer for past in following.started.history]
    assert answers == [f"Done.\n\n{UNDONE}", UNDONE]
    assert all(past.tool_calls for past in following.started.history)


@pytest.mark.parametrize("status", ["completed", "failed", "interrupted"])
async def test_undo_of_a_turn_that_ended_in_any_way(turn: UndoneTurn, status: Any) -> None:
    await turn.call(add_task, NewTask("Milk"))
    await turn.finish(status)
    await turn.undo()

    assert await read_tasks(turn.dispatcher, turn.owner) == {}
    assert (await turn.read()).status == status


async def test_undo_of_a_running_turn_is_a_conflict(turn: UndoneTurn) -> None:
    await turn.call(add_task, NewTask("Milk"))
    assert not (await turn.read()).can_undo

    with pytest.raises(Conflict, match="has not ended"):
        await turn.undo()
    assert [*await read_tasks(turn.dispatcher, turn.owner)] == ["Milk"]


async def test_undo_of_a_turn_without_effects_is_a_conflict(turn: UndoneTurn) -> None:
    task = await turn.add_task()
    await turn.call(tasks.list_tasks)
    await turn.call(update_task, task.id, TaskChanges(title=task.title))
    failed = await turn.outcome(complete_task, task.id, version=7)
    await turn.finish()
    assert failed.is_error
    assert not (await turn.read()).can_undo

    with pytest.raises(NotUndoable, match="nothing to undo") as error:
        await turn.undo()
    assert conflicts_of(error) == []


async def test_undo_with_a_later_change_is_a_conflict_and_undoes_nothing(turn: UndoneTurn) -> None:
    changed, deleted, completed = [await turn.add_task(title) for title in ("Changed", "Deleted", "Completed")]
    for task in (changed, deleted, completed):
        await turn.call(complete_task, task.id)
    added = await turn.call(add_task, NewTask("Added"))
    saved = await turn.call(save_artifact, "Brief", "# One")
    await turn.finish()
    await turn.own(update_task, changed.id, TaskChanges(title="Changed again"))
    await turn.own(delete_task, deleted.id)
    await turn.own(revise_artifact, saved.id, ArtifactRevision("# Two"))
    before = await read_tasks(turn.dispatcher, turn.owner)
    assert (await turn.read()).can_undo

    with pytest.raises(NotUndoable, match="nothing was undone") as error:
        await turn.undo()

    assert conflicts_of(error) == [
        ("artifacts", saved.id, "changed"),
        ("tasks", deleted.id, "deleted"),
        ("tasks", changed.id, "changed"),
    ]
    assert await read_tasks(turn.dispatcher, turn.owner) == before
    assert added.title in before
    assert (await turn.read()).undone_at is None
    assert (await turn.events())[-1].name == "turn.completed"


async def test_undo_of_two_turns_one_after_the_other(turn: UndoneTurn) -> None:
    before = await turn.add_task()
    await turn.call(update_task, before.id, TaskChanges(title="Oat milk"))
    document = await turn.call(save_artifact, "Brief", "# One")
    await turn.finish()
    second = await UndoneTurn.start(turn.dispatcher, turn.owner, turn.conversation_id)
    await second.call(complete_task, before.id)
    await second.call(save_artifact, "Brief", "# Two", document.id)
    await second.finish()
    third = await UndoneTurn.start(turn.dispatcher, turn.owner, turn.conversation_id)
    await third.call(delete_task, before.id)
    await third.call(delete_artifact, document.id)
    await third.finish()
    with pytest.raises(NotUndoable):
        await turn.undo()
    for undone in (third, second, turn):
        await undone.undo()

    after = await turn.own(get_task, before.id)
    assert values_of(after) == values_of(before)
    assert await read_artifacts(turn.dispatcher, turn.owner) == {}


async def test_undo_of_what_cannot_be_undone_lists_it(turn: UndoneTurn) -> None:
    async def rename(uow: UnitOfWork) -> int:
        conversation = await uow.conversations.get(turn.conversation_id)
        await uow.conversations.update(replace(conversation, title="Renamed"))
        return 1

    await turn.call(add_task, NewTask("Milk"))
    await turn.call(_with_permission(rename))
    await turn.finish()
    calls = (await turn.read()).tool_calls
    assert not (await turn.read()).can_undo

    with pytest.raises(NotUndoable, match="not recorded") as error:
        await turn.undo()
    assert error.value.members["conflicts"] == [UndoConflict(calls[1].id, "conversations", None, "not-recorded")]
    assert [*await read_tasks(turn.dispatcher, turn.owner)] == ["Milk"]


async def test_undo_of_more_changes_by_one_call_than_are_recorded_is_a_conflict(turn: UndoneTurn) -> None:
    async def add_many(uow: UnitOfWork) -> int:
        for number in range(101):
            await add_task(uow, NewTask(str(number)))
        return 101

    await turn.call(_with_permission(add_many))
    await turn.finish()
    assert not (await turn.read()).can_undo

    with pytest.raises(NotUndoable) as error:
        await turn.undo()
    assert conflicts_of(error) == [("tasks", None, "not-recorded")]


async def test_undo_of_a_call_of_an_earlier_release_is_a_conflict(turn: UndoneTurn) -> None:
    """Its record has no changes, and its turn no effects."""
    await turn.call(add_task, NewTask("Milk"))
    await turn.finish()
    await turn.own(_forget_changes)

    with pytest.raises(NotUndoable) as error:
        await turn.undo()
    assert conflicts_of(error) == [(None, None, "not-recorded")]


async def test_undo_follows_the_order_of_effects_and_not_of_announcements(turn: UndoneTurn) -> None:
    """An announced call has its id before other calls run."""
    before = await turn.add_task()
    arguments = msgspec.json.encode([[before.id], {}])
    request = ToolRequest("slow", "delete_task", Raw(arguments))
    batch = EventBatch(0, "", Usage(), request)
    await turn.own(append_events, turn.id, batch)
    await turn.call(complete_task, before.id, call_id="fast")
    await turn.call(delete_task, before.id, call_id="slow")
    await turn.finish()
    assert [call.name for call in (await turn.read()).tool_calls] == ["delete_task", "complete_task"]
    await turn.undo()

    assert values_of(await turn.own(get_task, before.id)) == values_of(before)


async def test_undo_belongs_to_the_user_alone(turn: UndoneTurn, you: Owner) -> None:
    await turn.call(add_task, NewTask("Milk"))
    with pytest.raises(Forbidden):
        await turn.dispatcher.call(turn.started.secret, undo_turn, turn.id)
    await turn.finish()

    with pytest.raises(NotFound):
        await turn.dispatcher.call(you, undo_turn, turn.id)
    assert [*await read_tasks(turn.dispatcher, turn.owner)] == ["Milk"]


async def test_changes_outside_a_turn_are_not_recorded(dispatcher: Dispatcher, me: Owner) -> None:
    await dispatcher.call(me, add_task, NewTask("Milk"))
    turn = await UndoneTurn.start(dispatcher, me)
    await turn.call(tasks.list_tasks)
    await turn.finish()

    assert not (await turn.read()).can_undo


def _with_permission(use_case: Any) -> Any:
    return requires(TASKS_WRITE, stores=True)(use_case)


@owner_only("write")
async def _forget_changes(uow: Any) -> None:
    await uow.session.execute(update(tool_calls).where(owned_by_user(tool_calls)).values(changes=null()))
