"""Undo of the recorded changes by tool calls, in SQL."""

import sqlite3
from datetime import datetime
from functools import cache
from typing import Any
from uuid import UUID

import asyncpg
import msgspec
from msgspec import Struct
from sqlalchemy import (
    Insert,
    Select,
    Table,
    Update,
    and_,
    bindparam,
    delete,
    literal,
    select,
    update,
)

from latchkey.domain.tool_call import ToolCallId
from latchkey.domain.turn import TurnId
from latchkey.domain.turn_event import ToolCallCompletedEvent, TurnUndoneEvent
from latchkey.domain.undo import Change, ConflictReason, Effect, NotUndoable, UndoConflict, UndoneEffect
from latchkey.infrastructure.database.repositories.deletion import conversation_is_not_deleted
from latchkey.infrastructure.database.schema import (
    artifact_versions,
    artifacts,
    conversations,
    tasks,
    tool_calls,
    turn_events,
    turns,
)
from latchkey.infrastructure.database.sql.recording import from_json, references_to
from latchkey.infrastructure.database.sql.session import Session, Statement, insert_for_user, owned_by_user

_decode_changes = msgspec.json.Decoder(list[Change]).decode
_decode_completed = msgspec.json.Decoder(ToolCallCompletedEvent).decode
_decode_undone = msgspec.json.Decoder(TurnUndoneEvent).decode

_CALLS = (
    select(tool_calls.c.id, tool_calls.c.changes, tool_calls.c.is_error)
    .where(owned_by_user(tool_calls), tool_calls.c.turn_id == bindparam("turn"))
    .order_by(tool_calls.c.id)
)
_COMPLETED = (
    select(turn_events.c.body)
    .where(
        owned_by_user(turn_events),
        turn_events.c.turn_id == bindparam("turn"),
        turn_events.c.name == "tool_call.completed",
    )
    .order_by(turn_events.c.seq)
)
_UNDONE = (
    select(turn_events.c.body)
    .join(turns, and_(turns.c.user_id == turn_events.c.user_id, turns.c.id == turn_events.c.turn_id))
    .where(
        owned_by_user(turns),
        owned_by_user(turn_events),
        turns.c.undone_at.is_not(None),
        turn_events.c.name == "turn.undone",
    )
)
_CONVERSATION = select(conversations.c.id).where(
    owned_by_user(conversations),
    conversations.c.id == bindparam("conversation"),
    conversation_is_not_deleted(bindparam("conversation")),
)
_VERSION = select(artifact_versions.c.title, artifact_versions.c.content).where(
    owned_by_user(artifact_versions),
    artifact_versions.c.artifact_id == bindparam("row_id"),
    artifact_versions.c.version == bindparam("wanted"),
)
_INSERT_VERSION = insert_for_user(artifact_versions)
_CONSTRAINT_ERRORS = (asyncpg.IntegrityConstraintViolationError, sqlite3.IntegrityError)


class _Conflict(Exception):
    """An effect cannot be undone."""

    def __init__(self, reason: ConflictReason) -> None:
        self.reason = reason


class _Statements(Struct, frozen=True, eq=False):
    """The statements of one table. `references` return a row if another row refers to that with this id."""

    names: list[str]
    row: Select[*tuple[Any, ...]]
    update: Update
    delete: Statement
    references: list[Select[*tuple[Any, ...]]]


class SqlUndo:
    """Undoes changes one by one, each in the state that the next one has left."""

    def __init__(self, session: Session, now: datetime, entities: tuple[Table, ...]) -> None:
        self._session = session
        self._now = now
        self._entities = entities
        self._tables = {table.name: table for table in (tasks, artifacts, *entities)}
        self._versions: dict[tuple[str, UUID], int] = {}
        """The versions of rows that were restored by this undo."""
        self._restored: dict[tuple[str, UUID, int], int] | None = None
        """By table, id and version: the version whose state was restored by an earlier undo."""

    async def revert(self, turn_id: TurnId) -> list[UndoneEffect]:
        calls = await self._calls(turn_id)
        conflicts = [
            UndoConflict(call_id, change.table or None, None, change.reason or "not-recorded")
            for call_id, changes in calls
            for change in changes
            if change.id is None
        ]
        effects: list[UndoneEffect] = []
        in_conflict: set[tuple[str, UUID]] = set()
        for call_id, changes in calls:
            for change in reversed(changes):
                if change.id is None or (row := (change.table, change.id)) in in_conflict:
                    continue
                try:
                    effects.append(await self._undo(call_id, change, change.id))
                except _Conflict as conflict:
                    in_conflict.add(row)
                    conflicts.append(UndoConflict(call_id, change.table, change.id, conflict.reason))
                except _CONSTRAINT_ERRORS:
                    # PostgreSQL refuses all further statements.
                    conflicts.append(UndoConflict(call_id, change.table, change.id, "constraint"))
                    raise _not_undoable(conflicts) from None
        if conflicts:
            raise _not_undoable(conflicts)
        if not effects:
            raise NotUndoable(
                "The tool calls of this turn have changed nothing: there is nothing to undo.", conflicts=[]
            )
        return effects

    async def _calls(self, turn_id: TurnId) -> list[tuple[ToolCallId, list[Change]]]:
        """Return the changes of each tool call, the last call first. Calls that failed have none."""
        rows = await self._session.fetch(_CALLS, turn=turn_id)
        completed = await self._session.fetch(_COMPLETED, turn=turn_id)
        order = {_decode_completed(body).id: number for number, (body,) in enumerate(completed)}
        rows.sort(key=lambda row: order.get(row[0], -1), reverse=True)
        calls: list[tuple[ToolCallId, list[Change]]] = []
        for id, changes, is_error in rows:
            if changes is not None:
                calls.append((id, _decode_changes(changes)))
            elif not is_error:
                # A process of an earlier release has made this call.
                calls.append((id, [Change.not_recorded("")]))
        return calls

    async def _undo(self, call_id: ToolCallId, change: Change, id: UUID) -> UndoneEffect:
        table = self._tables.get(change.table)
        if table is None:
            raise _Conflict("not-recorded")  # of an app's entity that is no longer registered
        statements = _statements(table, self._entities)
        values = await self._session.fetch_row(statements.row, row_id=id)
        row = None if values is None else dict(zip(statements.names, values, strict=True))
        undo = self._undo_artifact if table is artifacts else self._undo_row
        version = await undo(table, statements, change, row)
        restored = None if version is None else change.before["version"]
        if version is not None:
            self._versions[change.table, id] = version
        return UndoneEffect(call_id, change.table, id, _effect_of(change, table), version, restored)

    async def _undo_row(
        self, table: Table, statements: _Statements, change: Change, row: dict[str, Any] | None
    ) -> int | None:
        """Undo the change of a row, and return its new version; None for a deleted row."""
        if change.effect == "deleted":
            if row is not None:
                raise _Conflict("exists")
            return await self._insert(table, change)
        if row is None:
            raise _Conflict("deleted")
        await self._check_version(change, row)
        if change.effect == "created":
            for reference in statements.references:
                if await self._session.fetch_row(reference, row_id=change.id):
                    raise _Conflict("in-use")
            await self._session.execute(statements.delete, row_id=change.id)
            return None
        changed = _with_values(table, row, change)
        changed |= {"version": row["version"] + 1, "updated_at": self._now}
        await self._session.execute(statements.update, row_id=change.id, **changed)
        return int(changed["version"])

    async def _insert(self, table: Table, change: Change) -> int:
        row = _with_values(table, {"id": change.id}, change)
        row |= {"version": row["version"] + 1, "updated_at": self._now}
        conversation_id = row.get("conversation_id") if table is tasks else None
        if conversation_id and not await self._session.fetch_row(_CONVERSATION, conversation=conversation_id):
            row["conversation_id"] = None  # as for other tasks of a deleted conversation
        await self._session.execute(_insert_with(table, frozenset(row)), **row)
        return int(row["version"])

    async def _undo_artifact(
        self, table: Table, statements: _Statements, change: Change, row: dict[str, Any] | None
    ) -> int | None:
        """Undo the change of an artifact. An earlier version is saved again as the next version."""
        was_deleted = _effect_of(change, table) == "deleted"
        if row is None or (row["deleted_at"] is not None and not was_deleted):
            raise _Conflict("deleted")
        if was_deleted and row["deleted_at"] is None:
            raise _Conflict("exists")
        await self._check_version(change, row)
        if change.effect == "created":
            await self._session.execute(statements.update, row_id=change.id, deleted_at=self._now)
            return None
        version = await self._session.fetch_row(_VERSION, row_id=change.id, wanted=change.before["version"])
        if version is None:
            raise _Conflict("deleted")
        (title, content), number = version, row["version"] + 1
        changed = {"title": title, "version": number, "updated_at": self._now, "deleted_at": None, "turn_id": None}
        await self._session.execute(_UPDATE_ARTIFACT, row_id=change.id, **changed)
        added = {"title": title, "content": content, "turn_id": None, "created_at": self._now}
        await self._session.execute(_INSERT_VERSION, artifact_id=change.id, version=number, **added)
        return int(number)

    async def _check_version(self, change: Change, row: dict[str, Any]) -> None:
        """Raises `_Conflict` if the row has been changed since, and not restored to its state after the change."""
        current = row["version"]
        if current == change.version or self._versions.get((change.table, row["id"])) == current:
            return
        if self._restored is None:
            bodies = await self._session.fetch(_UNDONE)
            self._restored = {
                (effect.kind, effect.id, effect.version): effect.restored_version
                for (body,) in bodies
                for effect in _decode_undone(body).effects
                if effect.version is not None and effect.restored_version is not None
            }
        while current is not None and current != change.version:
            current = self._restored.get((change.table, row["id"], current))
        if current is None:
            raise _Conflict("changed")


_UPDATE_ARTIFACT = update(artifacts).where(owned_by_user(artifacts), artifacts.c.id == bindparam("row_id"))


@cache
def _statements(table: Table, entities: tuple[Table, ...]) -> _Statements:
    condition = (owned_by_user(table), table.c.id == bindparam("row_id"))
    columns = [column for column in table.c if column.name != "user_id"]
    return _Statements(
        [column.name for column in columns],
        select(*columns).where(*condition).with_for_update(),
        update(table).where(*condition),
        delete(table).where(*condition),
        [
            select(literal(1)).where(owned_by_user(other), key.parent == bindparam("row_id")).limit(1)
            for other, key in references_to(table, entities)
        ],
    )


@cache
def _insert_with(table: Table, columns: frozenset[str]) -> Insert:
    """Return the INSERT of a row with these columns: a deletion may be recorded by a release with other columns.

    A statement is prepared with the columns of its first use.
    """
    del columns
    return insert_for_user(table)


def _effect_of(change: Change, table: Table) -> Effect:
    """Return what the call did. A deleted artifact is hidden before it is removed, so its row was updated."""
    return "deleted" if table is artifacts and "deleted_at" in change.before else change.effect


def _with_values(table: Table, row: dict[str, Any], change: Change) -> dict[str, Any]:
    """Return the row with the values from before the change. Raises `_Conflict` if they no longer fit the table."""
    try:
        before = {name: from_json(table.c[name], value) for name, value in change.before.items()}
    except (KeyError, ValueError):
        raise _Conflict("not-recorded") from None
    return {name: value for name, value in {**row, **before}.items() if name != "id" or change.effect == "deleted"}


def _not_undoable(conflicts: list[UndoConflict]) -> NotUndoable:
    if any(conflict.reason == "external" for conflict in conflicts):
        detail = "A tool of this turn may have changed something in another service: nothing was undone."
    elif any(conflict.reason == "not-recorded" for conflict in conflicts):
        detail = "The state before a tool call of this turn is not recorded: nothing was undone."
    else:
        detail = "What tool calls of this turn changed has been changed since: nothing was undone."
    return NotUndoable(detail, conflicts=conflicts)
