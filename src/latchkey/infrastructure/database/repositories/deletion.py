"""Deleted conversations and artifacts: no statement finds them, and their rows are removed in steps."""

from collections.abc import Sequence
from typing import Any

from sqlalchemy import ColumnElement, Integer, Select, Table, bindparam, delete, exists, select, tuple_, update

from latchkey.infrastructure.database.schema import (
    artifact_versions,
    artifacts,
    context_tokens,
    conversations,
    tasks,
    turns,
)
from latchkey.infrastructure.database.sql.session import Session, Statement, owned_by_user


def conversation_is_not_deleted(id: ColumnElement[Any], *correlated: Table) -> ColumnElement[bool]:
    """Return the condition that no deleted conversation has this id. A column is one of the `correlated` table."""
    return ~(
        exists()
        .where(
            owned_by_user(conversations),
            *(owned_by_user(table) for table in correlated),
            conversations.c.id == id,
            conversations.c.deleted_at.is_not(None),
        )
        .correlate(*correlated)
    )


def is_not_deleted(table: Table) -> ColumnElement[bool]:
    """Return the condition that the conversation of a row is not deleted; it may have none."""
    return conversation_is_not_deleted(table.c.conversation_id, table)


def turn_is_not_deleted(id: ColumnElement[Any]) -> ColumnElement[bool]:
    """Return the condition that no turn of a deleted conversation has this id."""
    return ~exists().where(
        owned_by_user(turns),
        owned_by_user(conversations),
        turns.c.id == id,
        conversations.c.id == turns.c.conversation_id,
        conversations.c.deleted_at.is_not(None),
    )


_LIMIT = bindparam("limit", type_=Integer())
_KEY = bindparam("key", type_=conversations.c.id.type)


def _some(table: Table, *conditions: ColumnElement[bool]) -> Select[tuple[Any]]:
    return select(table.c.id).where(owned_by_user(table), *conditions).order_by(table.c.id).limit(_LIMIT)


def _delete_some(table: Table) -> Statement:
    return delete(table).where(owned_by_user(table), table.c.id.in_(_some(table, table.c.conversation_id == _KEY)))


def _delete_some_versions(some_artifacts: Select[tuple[Any]]) -> Statement:
    columns = artifact_versions.c
    some = select(columns.artifact_id, columns.version).where(
        owned_by_user(artifact_versions), columns.artifact_id.in_(some_artifacts)
    )
    return delete(artifact_versions).where(
        owned_by_user(artifact_versions), tuple_(columns.artifact_id, columns.version).in_(some.limit(_LIMIT))
    )


_ARTIFACTS_OF_CONVERSATION = _some(artifacts, artifacts.c.conversation_id == _KEY)
_ARTIFACT = _some(artifacts, artifacts.c.id == _KEY)
_REMOVE_CONVERSATION: Sequence[Statement] = (
    update(tasks)
    .where(owned_by_user(tasks), tasks.c.id.in_(_some(tasks, tasks.c.conversation_id == _KEY)))
    .values(conversation_id=None),
    _delete_some(turns),
    _delete_some_versions(_ARTIFACTS_OF_CONVERSATION),
    _delete_some(artifacts),
    _delete_some(context_tokens),
    delete(conversations).where(owned_by_user(conversations), conversations.c.id == _KEY),
)
"""In this order: the messages, events, tool calls, tokens and artifacts of a turn are deleted with it."""
_REMOVE_ARTIFACT: Sequence[Statement] = (
    _delete_some_versions(_ARTIFACT),
    delete(artifacts).where(owned_by_user(artifacts), artifacts.c.id == _KEY),
)
_DELETED_CONVERSATIONS, _DELETED_ARTIFACTS = (
    select(table.c.id).where(owned_by_user(table), table.c.deleted_at.is_not(None)).limit(2)
    for table in (conversations, artifacts)
)


class SqlDeletions:
    """Removes what the user has deleted."""

    def __init__(self, session: Session) -> None:
        self._session = session

    async def remove_part(self, limit: int) -> bool:
        return await self._remove_part(_DELETED_CONVERSATIONS, _REMOVE_CONVERSATION, limit) or await self._remove_part(
            _DELETED_ARTIFACTS, _REMOVE_ARTIFACT, limit
        )

    async def _remove_part(self, deleted: Statement, statements: Sequence[Statement], limit: int) -> bool:
        """Remove a part of one of the deleted rows with what belongs to it; return whether more is left."""
        rows = await self._session.fetch(deleted)
        if not rows:
            return False
        *parts, last = statements
        for statement in parts:
            if await self._session.execute(statement, key=rows[0][0], limit=limit) == limit:
                return True
        await self._session.execute(last, key=rows[0][0])
        return len(rows) > 1
