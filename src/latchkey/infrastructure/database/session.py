"""An open transaction as repositories use it: statements in, rows out, the user always bound."""

from collections.abc import Sequence
from typing import Any

from msgspec import Struct
from sqlalchemy import Column, ColumnElement, CursorResult, Insert, Row, Table, bindparam, insert
from sqlalchemy.ext.asyncio import AsyncConnection
from sqlalchemy.sql import Executable

from latchkey.domain.scope import Scope
from latchkey.infrastructure.database.guard import USER


class ReadOnly(Exception):
    """A bug of ours: a write in a unit of work that was opened to read. It was not sent."""


class Session:
    """Repositories cannot bind another user: it is filled in here, from the scope."""

    def __init__(self, connection: AsyncConnection, scope: Scope, *, read_only: bool) -> None:
        self._connection = connection
        self._read_only = read_only
        self.scope = scope

    async def rows(self, statement: Executable, **values: Any) -> Sequence[Row[*tuple[Any, ...]]]:
        return (await self._execute(statement, values)).all()

    async def row(self, statement: Executable, **values: Any) -> Row[*tuple[Any, ...]] | None:
        return (await self._execute(statement, values)).first()

    async def run(self, statement: Executable, **values: Any) -> int:
        """How many rows it changed."""
        return (await self._execute(statement, values)).rowcount

    async def _execute(self, statement: Executable, values: dict[str, Any]) -> CursorResult[*tuple[Any, ...]]:
        # PostgreSQL would refuse by itself; SQLite would write.
        if self._read_only and statement.is_dml:
            raise ReadOnly(f"a read-only unit of work may not {type(statement).__name__}")
        values[USER] = self.scope.user_id
        return await self._connection.execute(statement, values)


def mine(table: Table) -> ColumnElement[bool]:
    """The condition that every statement on a tenant's table carries."""
    pinned: ColumnElement[bool] = table.c.user_id == bindparam(USER)
    return pinned


def insert_mine(table: Table) -> Insert:
    """An insert of a row of the scope's user; the other columns are given when it is run."""
    return insert(table).values(user_id=bindparam(USER))


def columns_of(table: Table, entity: type[Struct]) -> list[Column[Any]]:
    """The entity's columns in the order of its fields, so that `entity(*row)` is the entity."""
    return [table.c[field] for field in entity.__struct_fields__]
