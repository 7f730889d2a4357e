"""SQLite: one thread per `sqlite3` connection, one writer at a time."""

import asyncio
import os
import sqlite3
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import AbstractAsyncContextManager, asynccontextmanager, nullcontext, suppress
from functools import partial
from pathlib import Path
from queue import SimpleQueue
from threading import Thread
from typing import Any, TypeVar

from sqlalchemy import URL, event
from sqlalchemy.ext.asyncio import AsyncEngine

from latchkey.domain.concurrency import ConcurrencyLimiter, acquire_in_time
from latchkey.domain.credentials import Credential
from latchkey.domain.ports import TransactionMode
from latchkey.infrastructure.database.sql.driver import POOL_SIZE, POOL_TIMEOUT_S, Row, Write
from latchkey.infrastructure.database.sql.sqlite_dbapi import CursorResult, SQLiteDbapiConnection

Result = TypeVar("Result")

PRAGMAS = ("journal_mode=WAL", "synchronous=FULL", "busy_timeout=5000", "foreign_keys=ON")

READERS = 2
"""Statements that a process reads with at once. More threads contend for Python's global lock at each row."""

_BEGIN_SQL = {"read": "BEGIN", "write": "BEGIN IMMEDIATE", "exclusive": "BEGIN EXCLUSIVE"}


FileId = tuple[int, int]


def file_id(path: str) -> FileId | None:
    """Return what identifies the file that is at this path now; None if there is none."""
    try:
        status = os.stat(path)  # noqa: PTH116 - for each unit of work, and faster than `Path.stat`
    except OSError:
        return None
    return status.st_dev, status.st_ino


class SQLiteWorker:
    """One `sqlite3` connection and the thread that uses it. Jobs run one after the other."""

    def __init__(self) -> None:
        self._jobs: SimpleQueue[Callable[[], None] | None] = SimpleQueue()
        self._connection: sqlite3.Connection | None = None
        self.file: FileId | None = None
        self._thread = Thread(target=self._run_jobs, name="latchkey-sqlite", daemon=True)

    async def open(self, path: str) -> None:
        """Raises `sqlite3.Error` if the file cannot be opened, `RuntimeError` if there can be no more threads."""

        def connect() -> None:
            # No statement begins a transaction by itself. A missing file is an error: SQLite would create an empty one.
            uri = f"{Path(path).absolute().as_uri()}?mode=rw"
            self._connection = sqlite3.connect(uri, uri=True, isolation_level=None)
            self.file = file_id(path)
            for pragma in PRAGMAS:
                self._connection.execute(f"PRAGMA {pragma}")

        self._thread.start()
        await self._submit(connect)

    async def run(self, function: Callable[[sqlite3.Connection], Result]) -> Result:
        """Call the function with the connection, in the thread. A cancelled caller does not stop it."""
        if self._connection is None:
            raise AssertionError  # `open` comes first
        return await self._submit(partial(function, self._connection))

    def close(self, *, wait: bool) -> None:
        """Close the connection after the jobs that were submitted before."""
        self._jobs.put(None)
        if wait:
            self._thread.join()

    async def _submit(self, function: Callable[[], Result]) -> Result:
        loop = asyncio.get_running_loop()
        future: asyncio.Future[Result] = loop.create_future()

        def job() -> None:
            try:
                respond = partial(_set_result, future, function())
            except BaseException as error:  # noqa: BLE001 - the caller raises it
                respond = partial(_set_exception, future, error)
            # A loop that has been closed meanwhile needs no response.
            with suppress(RuntimeError):
                loop.call_soon_threadsafe(respond)

        self._jobs.put(job)
        return await future

    def _run_jobs(self) -> None:
        while job := self._jobs.get():
            job()
            del job  # it refers to the caller's future
        if self._connection is not None:
            self._connection.close()


def _set_result(future: asyncio.Future[Result], result: Result) -> None:
    if not future.done():
        future.set_result(result)


def _set_exception(future: asyncio.Future[Any], error: BaseException) -> None:
    if not future.done():
        future.set_exception(error)


class SQLitePool:
    """Connections to one file, opened when needed. The one used last is used next: it has the warmest page cache."""

    def __init__(self, path: str) -> None:
        self.readers = asyncio.Semaphore(READERS)
        self.in_use = 0
        self._path = path
        self._slots = asyncio.Semaphore(POOL_SIZE)
        self._idle: list[SQLiteWorker] = []
        self._closed = False

    async def acquire(self) -> SQLiteWorker:
        """Raises `TimeoutError` if all connections stay in use, `sqlite3.Error` if the file cannot be opened."""
        async with asyncio.timeout(POOL_TIMEOUT_S):
            await self._slots.acquire()
        self.in_use += 1
        file = file_id(self._path)
        while self._idle:
            worker = self._idle.pop()
            if worker.file == file:
                return worker
            # The file was removed or replaced. What is written through the old connection would be lost.
            worker.close(wait=False)
        worker = SQLiteWorker()
        try:
            await worker.open(self._path)
        except BaseException:
            self.discard(worker)
            raise
        return worker

    def release(self, worker: SQLiteWorker) -> None:
        if self._closed:
            self.discard(worker)
        else:
            self._idle.append(worker)
            self._free_slot()

    def discard(self, worker: SQLiteWorker) -> None:
        worker.close(wait=False)
        self._free_slot()

    def close(self) -> None:
        """Close the idle connections now, and each of the others when it is released."""
        self._closed = True
        while self._idle:
            self._idle.pop().close(wait=True)

    def _free_slot(self) -> None:
        self.in_use -= 1
        self._slots.release()


class SQLiteConnection:
    """One transaction. Statements go to the thread in batches: a hop costs more than most statements."""

    def __init__(self, pool: SQLitePool, worker: SQLiteWorker, mode: TransactionMode) -> None:
        self._pool = pool
        self._worker = worker
        self._reads_only = mode == "read"
        # BEGIN goes along with the first statement.
        self._waiting: list[Write] = [(_BEGIN_SQL[mode], [])]

    async def begin_now(self) -> None:
        """Take the write lock before the first statement."""
        await self._run()

    async def fetch(self, sql: str, arguments: list[Any]) -> Iterable[Row]:
        async with self._pool.readers if self._reads_only else nullcontext():
            rows, _ = (await self._run((sql, arguments)))[-1]
        return rows

    async def execute_many(self, writes: list[Write]) -> int:
        _, changed = (await self._run(*writes))[-len(writes)]
        return changed

    def dbapi_connection(self) -> SQLiteDbapiConnection:
        return SQLiteDbapiConnection(self._run_cursor)

    async def commit(self, writes: list[Write]) -> bool:
        if writes or not self._waiting:
            await self._run(*writes, ("COMMIT", []))
        return True

    def release(self) -> None:
        self._pool.release(self._worker)

    async def roll_back(self) -> None:
        try:
            if not self._waiting:
                async with asyncio.timeout(POOL_TIMEOUT_S):
                    await self._worker.run(_roll_back)
        except (TimeoutError, sqlite3.Error):
            self._pool.discard(self._worker)
        except BaseException:
            self._pool.discard(self._worker)
            raise
        else:
            self.release()

    async def _run_cursor(self, sql: str, parameters: Any, many: bool) -> CursorResult:  # noqa: FBT001 # of `Run`
        async with self._pool.readers if self._reads_only else nullcontext():
            if self._waiting:
                await self._run()
            return await self._worker.run(partial(_execute_cursor, sql, parameters, many))

    async def _run(self, *statements: Write) -> list[tuple[list[Row], int]]:
        batch, self._waiting = [*self._waiting, *statements], []
        return await self._worker.run(partial(_execute_batch, batch))


def _execute_batch(statements: list[Write], connection: sqlite3.Connection) -> list[tuple[list[Row], int]]:
    """Return the rows and the number of changed rows of each statement."""
    results: list[tuple[list[Row], int]] = []
    for sql, arguments in statements:
        cursor = connection.execute(sql, arguments)
        results.append((cursor.fetchall(), cursor.rowcount))
    return results


def _execute_cursor(sql: str, parameters: Any, many: bool, connection: sqlite3.Connection) -> CursorResult:  # noqa: FBT001 # of `Run`
    cursor = connection.executemany(sql, parameters) if many else connection.execute(sql, parameters)
    return CursorResult(cursor.fetchall(), cursor.description, cursor.rowcount, cursor.lastrowid)


def _roll_back(connection: sqlite3.Connection) -> None:
    """Does nothing if SQLite has ended the transaction already, as it does after some errors."""
    connection.rollback()


class SQLite:
    """One writer at a time. It takes its lock when it begins: to upgrade a read lock fails as "database is locked"."""

    def __init__(self, engine: AsyncEngine) -> None:
        """The connections are closed when the engine is disposed of."""
        self.limiter = ConcurrencyLimiter()
        self.pool = SQLitePool(str(engine.url.database))
        self._writer = asyncio.Lock()
        event.listen(engine.sync_engine, "engine_disposed", lambda _: self.pool.close())

    def queue(self, credential: Credential, mode: TransactionMode) -> AbstractAsyncContextManager[Any]:
        return self.limiter.slot(credential) if mode == "read" else self._write_slot(credential)

    async def begin(self, credential: Credential, mode: TransactionMode) -> SQLiteConnection:
        connection = SQLiteConnection(self.pool, await self.pool.acquire(), mode)
        if mode == "exclusive":
            try:
                await connection.begin_now()
            except BaseException:
                await asyncio.shield(connection.roll_back())
                raise
        return connection

    @asynccontextmanager
    async def _write_slot(self, credential: Credential) -> AsyncIterator[None]:
        """A user's slot first: few units of work of one user wait for the file among those of other users."""
        async with self.limiter.slot(credential), acquire_in_time(self._writer):
            yield


def create_private_file(url: URL) -> None:
    """Create the database file with mode 600. SQLite would let every user of the machine read it.

    The files that SQLite creates beside it get the same mode. An existing file is left as it is. Errors are left
    to the first connection.
    """
    with suppress(OSError):
        os.close(os.open(str(url.database), os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))


def database_files(url: URL) -> list[Path]:
    """Return the paths of the database, its write-ahead log and its index. The last two exist while it is open."""
    return [Path(f"{url.database}{suffix}") for suffix in ("", "-wal", "-shm")]
