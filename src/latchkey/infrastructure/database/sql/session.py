"""An open transaction as repositories use it: statements in, rows out, the user always bound."""

from typing import Any

from msgspec import Struct
from sqlalchemy import Column, ColumnElement, FromClause, Insert, Table, Update, bindparam, insert

from latchkey.domain.credentials import Scope
from latchkey.domain.quota import ROW_BYTES
from latchkey.infrastructure.database.sql.driver import DriverConnection, Row, Write
from latchkey.infrastructure.database.sql.statements import Prepared, Statement, Statements, Values
from latchkey.infrastructure.database.sql.tenant_guard import USER


class ReadOnly(Exception):
    """A bug of ours: a write in a unit of work that was opened to read. It was not sent."""


class Session:
    """Repositories cannot bind another user: it is filled in here, from the scope."""

    def __init__(self, driver: DriverConnection, statements: Statements, scope: Scope, *, read_only: bool) -> None:
        self._driver = driver
        self._statements = statements
        self._read_only = read_only
        self._waiting: list[Write] = []
        self._touched: set[FromClause | None] = set()
        self.scope = scope
        self.written = 0

    async def rows(self, statement: Statement, **values: Any) -> list[Row]:
        prepared = self._prepared(statement, values)
        await self.flush()
        return [prepared.read(row) for row in await self._driver.fetch(prepared.sql, prepared.arguments(values))]

    async def row(self, statement: Statement, **values: Any) -> Row | None:
        found = await self.rows(statement, **values)
        return found[0] if found else None

    async def run(self, statement: Statement, **values: Any) -> int:
        """How many rows it changed. An update takes along what waits, unless that is about the same table."""
        prepared = self._prepared(statement, values)
        if not isinstance(statement, Update) or prepared.table in self._touched:
            await self.flush()
        self._waiting.insert(0, (prepared.sql, prepared.arguments(values)))
        return await self.flush()

    def write(self, statement: Statement, **values: Any) -> None:
        """To be sent with others, before the next that is waited for: a turn with a tool is 12 round trips, not 29.

        All that wait are one statement to the database, so none of them may build on another.
        """
        prepared = self._prepared(statement, values)
        self._waiting.append((prepared.sql, prepared.arguments(values)))
        self._touched.add(prepared.table)

    async def flush(self) -> int:
        """Send what waits. How many rows the first of it changed."""
        if not self._waiting:
            return 0
        waiting, self._waiting = self._waiting, []
        self._touched.clear()
        return await self._driver.execute_many(waiting)

    async def commit(self) -> bool:
        """With what waits. False if the database had refused a statement, and so kept nothing."""
        waiting, self._waiting = self._waiting, []
        return await self._driver.commit(waiting)

    def _prepared(self, statement: Statement, values: Values) -> Prepared:
        values[USER] = self.scope.user_id
        prepared = self._statements.prepared(statement, values)
        # PostgreSQL would refuse by itself; SQLite would write.
        if self._read_only and prepared.writes:
            raise ReadOnly(f"a read-only unit of work may not {type(statement).__name__}")
        if prepared.writes:
            self.written += ROW_BYTES
            for value in values.values():
                if isinstance(value, str):
                    self.written += len(value) if value.isascii() else len(value.encode())
        return prepared


def owned_by_user(table: Table) -> ColumnElement[bool]:
    """The condition that every statement on a tenant's table carries."""
    pinned: ColumnElement[bool] = table.c.user_id == bindparam(USER)
    return pinned


def insert_for_user(table: Table) -> Insert:
    """An insert of a row of the scope's user; the other columns are given when it is run."""
    return insert(table).values(user_id=bindparam(USER))


def columns_of(table: Table, entity: type[Struct]) -> list[Column[Any]]:
    """The entity's columns in the order of its fields, so that `entity(*row)` is the entity."""
    return [table.c[field] for field in entity.__struct_fields__]


def columns_except(table: Table, *names: str) -> list[Column[Any]]:
    """The table's columns in their order, but for the user and those named."""
    return [column for column in table.c if column.name not in {"user_id", *names}]
