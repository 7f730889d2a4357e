"""The drivers' connections, past SQLAlchemy's: SQL and its arguments in, rows out."""

import asyncio
import re
import sqlite3
from collections.abc import Iterable, Sequence
from contextlib import nullcontext
from functools import lru_cache
from typing import Any, Protocol

import aiosqlite
import asyncpg

Row = Sequence[Any]
Write = tuple[str, list[Any]]
StatementResult = tuple[list[Row], int]

_PARAMETER = re.compile(r"\$(\d+)")


class DriverConnection(Protocol):
    """One open connection, held by one unit of work."""

    async def begin(self, sql: str) -> None: ...
    async def fetch(self, sql: str, arguments: list[Any]) -> Iterable[Row]: ...

    async def execute_many(self, writes: list[Write]) -> int:
        """All of them, though none may see what another does. How many rows the first one changed."""
        ...

    async def commit(self, writes: list[Write]) -> bool:
        """These, and then all. False if the database answered the COMMIT by rolling back."""
        ...

    async def roll_back(self) -> None: ...


class AsyncpgConnection:
    def __init__(self, connection: "asyncpg.Connection[asyncpg.Record]") -> None:
        self._connection = connection

    async def begin(self, sql: str) -> None:
        await self._connection.execute(sql)

    async def fetch(self, sql: str, arguments: list[Any]) -> Iterable[Row]:
        rows: Iterable[Any] = await self._connection.fetch(sql, *arguments)
        return rows

    async def execute_many(self, writes: list[Write]) -> int:
        sql = writes[0][0] if len(writes) == 1 else _together(*(sql for sql, _ in writes))
        tag = await self._connection.execute(sql, *(value for _, arguments in writes for value in arguments))
        return int(tag.rpartition(" ")[2])

    async def commit(self, writes: list[Write]) -> bool:
        if writes:
            await self.execute_many(writes)
        # After a refused statement, COMMIT succeeds, and its tag tells what it did.
        return await self._connection.execute("COMMIT") != "ROLLBACK"

    async def roll_back(self) -> None:
        await self._connection.execute("ROLLBACK")


READERS = 2
BEGIN_EXCLUSIVE = "BEGIN EXCLUSIVE"
"""With a write-ahead log, the same as IMMEDIATE. Whoever says this is to have the file before anything is asked."""


def readers() -> asyncio.Semaphore:
    """Of so many reading threads of a process, the one who reads much does not stop the others.

    Python's own lock is given up and fought for at each row: with 16 threads, a list of 50 tasks took 1.5 ms of CPU.
    """
    return asyncio.Semaphore(READERS)


class SQLiteConnection:
    """Visits the connection's thread as seldom as can be: to go there and back takes longer than most statements."""

    def __init__(self, connection: aiosqlite.Connection, readers: asyncio.Semaphore) -> None:
        self._connection = connection
        self._readers = readers
        self._reads_only = False
        self._waiting: list[Write] = []

    async def begin(self, sql: str) -> None:
        """With the first statement, so that what only writes takes a single visit: 10 % of a new task."""
        self._waiting.append((sql, []))
        self._reads_only = sql == "BEGIN"
        if sql == BEGIN_EXCLUSIVE:
            await self._run_in_thread()

    async def fetch(self, sql: str, arguments: list[Any]) -> Iterable[Row]:
        async with self._readers if self._reads_only else nullcontext():
            *_, (rows, _changed) = await self._run_in_thread((sql, arguments))
        return rows

    async def execute_many(self, writes: list[Write]) -> int:
        answers = await self._run_in_thread(*writes)
        _rows, changed = answers[-len(writes)]
        return changed

    async def commit(self, writes: list[Write]) -> bool:
        if writes or not self._waiting:
            await self._run_in_thread(*writes, ("COMMIT", []))
        return True

    async def roll_back(self) -> None:
        if not self._waiting:
            await self._run_in_thread(("ROLLBACK", []))

    async def _run_in_thread(self, *statements: Write) -> list[StatementResult]:
        waiting, self._waiting = [*self._waiting, *statements], []
        answers: list[StatementResult]
        # aiosqlite's own methods make a visit each, and one more to close the cursor.
        answers = await self._connection._execute(  # type: ignore[no-untyped-call]  # noqa: SLF001
            _answers,
            self._connection._conn,  # noqa: SLF001
            waiting,
        )
        return answers


def _answers(connection: sqlite3.Connection, statements: list[Write]) -> list[StatementResult]:
    answers: list[StatementResult] = []
    for sql, arguments in statements:
        cursor = connection.execute(sql, arguments)
        answers.append((cursor.fetchall(), cursor.rowcount))
    return answers


@lru_cache(256)
def _together(*statements: str) -> str:
    """One statement that does what all of them do (`WITH` with data-modifying statements), in one round trip.

    PostgreSQL runs the main one, and then the others from the last that is listed to the first: listed backwards,
    they take their locks in the order in which they were written.
    """
    parts, taken = [], 0
    for sql in statements:
        parts.append(_PARAMETER.sub(lambda found, before=taken: f"${int(found[1]) + before}", sql))  # type: ignore[misc]
        taken += max(int(number) for number in _PARAMETER.findall(sql))
    main, *others = parts
    return f"WITH {', '.join(f'write{nth} AS ({sql})' for nth, sql in reversed(list(enumerate(others))))} {main}"
