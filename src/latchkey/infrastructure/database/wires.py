"""The drivers' connections, past SQLAlchemy's: SQL and its arguments in, rows out."""

from collections.abc import Iterable, Sequence
from typing import Any, Protocol

import aiosqlite
import asyncpg

Row = Sequence[Any]


class Wire(Protocol):
    """One open connection, held by one unit of work."""

    async def send(self, sql: str) -> bool:
        """Begin or end a transaction. False if the database answered a COMMIT by rolling back."""
        ...

    async def fetch(self, sql: str, arguments: list[Any]) -> Iterable[Row]: ...

    async def run(self, sql: str, arguments: list[Any]) -> int:
        """How many rows it changed."""
        ...

    async def run_each(self, sql: str, arguments: list[list[Any]]) -> None:
        """Once for each, without waiting in between."""
        ...


class AsyncpgWire:
    def __init__(self, connection: "asyncpg.Connection[asyncpg.Record]") -> None:
        self._connection = connection

    async def send(self, sql: str) -> bool:
        # After a refused statement, COMMIT succeeds, and its tag tells what it did.
        return await self._connection.execute(sql) != "ROLLBACK" or sql == "ROLLBACK"

    async def fetch(self, sql: str, arguments: list[Any]) -> Iterable[Row]:
        rows: Iterable[Any] = await self._connection.fetch(sql, *arguments)
        return rows

    async def run(self, sql: str, arguments: list[Any]) -> int:
        tag = await self._connection.execute(sql, *arguments)
        return int(tag.rpartition(" ")[2])

    async def run_each(self, sql: str, arguments: list[list[Any]]) -> None:
        await self._connection.executemany(sql, arguments)


class AiosqliteWire:
    def __init__(self, connection: aiosqlite.Connection) -> None:
        self._connection = connection

    async def send(self, sql: str) -> bool:
        await self.run(sql, [])
        return True

    async def fetch(self, sql: str, arguments: list[Any]) -> Iterable[Row]:
        rows: Iterable[Any] = await self._connection.execute_fetchall(sql, arguments)
        return rows

    async def run(self, sql: str, arguments: list[Any]) -> int:
        cursor = await self._connection.execute(sql, arguments)
        await cursor.close()
        return cursor.rowcount

    async def run_each(self, sql: str, arguments: list[list[Any]]) -> None:
        cursor = await self._connection.executemany(sql, arguments)
        await cursor.close()
