"""PostgreSQL: asyncpg connections from SQLAlchemy's pool, and transactions under row-level security."""

import asyncio
import re
from collections.abc import AsyncIterator, Iterable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from functools import lru_cache
from hashlib import blake2b
from typing import Any
from weakref import WeakValueDictionary

import asyncpg
from sqlalchemy import PoolProxiedConnection
from sqlalchemy.ext.asyncio import AsyncEngine

from latchkey.domain.concurrency import ConcurrencyLimiter, acquire_in_time
from latchkey.domain.credentials import Credential, TokenSecret, UserId
from latchkey.domain.ports import TransactionMode
from latchkey.infrastructure.database.errors import DEAD_CONNECTION
from latchkey.infrastructure.database.sql.driver import POOL_SIZE, POOL_TIMEOUT_S, Row, Write

RUNTIME_ROLE = "latchkey_rt"
"""A role without login that owns no table, so that row-level security applies to it whatever the login may do."""

IDLE_IN_TRANSACTION_TIMEOUT = "5s"
"""A process that hangs in a transaction longer than this loses the transaction with its locks."""

_PARAMETER = re.compile(r"\$(\d+)")


class PostgreSQLConnection:
    """A pooled asyncpg connection. It bypasses SQLAlchemy's cursor layer."""

    def __init__(self, pooled: PoolProxiedConnection) -> None:
        self._pooled = pooled
        self._connection: asyncpg.Connection[asyncpg.Record] = pooled.driver_connection  # type: ignore[assignment]

    async def begin(self, sql: str) -> None:
        await self._connection.execute(sql)

    async def fetch(self, sql: str, arguments: list[Any]) -> Iterable[Row]:
        rows: Iterable[Any] = await self._connection.fetch(sql, *arguments)
        return rows

    async def execute_many(self, writes: list[Write]) -> int:
        sql = writes[0][0] if len(writes) == 1 else _combine(*(sql for sql, _ in writes))
        tag = await self._connection.execute(sql, *(value for _, arguments in writes for value in arguments))
        return int(tag.rpartition(" ")[2])

    def dbapi_connection(self) -> PoolProxiedConnection:
        return self._pooled

    async def commit(self, writes: list[Write]) -> bool:
        if writes:
            await self.execute_many(writes)
        # After a failed statement, COMMIT succeeds, and its tag is ROLLBACK.
        return await self._connection.execute("COMMIT") != "ROLLBACK"

    def release(self) -> None:
        # Needs no waiting: the pool resets nothing, because every transaction has been ended before.
        self._pooled.close()

    def discard(self) -> None:
        """Close the connection without waiting for the server. The pool opens another one when needed."""
        self._pooled.invalidate()
        self._pooled.close()

    async def roll_back(self) -> None:
        try:
            # After a cancelled statement, asyncpg first waits for the server to confirm the cancellation.
            async with asyncio.timeout(POOL_TIMEOUT_S):
                await self._connection.execute("ROLLBACK")
        except (*DEAD_CONNECTION, asyncpg.PostgresError):
            self.discard()
        except BaseException:
            # The transaction may still be open, and the next unit of work may be that of another user.
            self.discard()
            raise
        else:
            self.release()


class PostgreSQLPool:
    """Checks connections out of an engine's pool inside a transaction."""

    def __init__(self, engine: AsyncEngine) -> None:
        self._engine = engine

    async def begin(self, begin_sql: str) -> PostgreSQLConnection:
        """Begin a transaction. A dead pooled connection is replaced: nothing was done on it yet."""
        for attempts_left in reversed(range(POOL_SIZE + 1)):
            connection = PostgreSQLConnection(await self._engine.raw_connection())
            try:
                await connection.begin(begin_sql)
            except DEAD_CONNECTION as error:
                connection.discard()
                # A timeout has used up the time of this unit of work: no further attempt.
                if not attempts_left or isinstance(error, TimeoutError):
                    raise
            except BaseException:
                await asyncio.shield(connection.roll_back())
                raise
            else:
                return connection
        raise AssertionError  # the last attempt returns or raises


class PostgreSQL:
    """Sets role and user for the transaction only, in the message that begins it: one round trip.

    Units of work under a token of a user share an advisory lock, and an exclusive one of the user holds it alone.
    PostgreSQL serves waiters in turn, so calls under a token cannot starve the unit of work that revokes it.
    Exclusive units of work of one process wait for each other before that, and so use one connection.
    """

    def __init__(self, engine: AsyncEngine) -> None:
        self.limiter = ConcurrencyLimiter()
        self._pool = PostgreSQLPool(engine)
        self._lock_secret: bytes | None = None
        self._exclusive: WeakValueDictionary[UserId, asyncio.Lock] = WeakValueDictionary()

    def queue(self, credential: Credential, mode: TransactionMode) -> AbstractAsyncContextManager[Any]:
        if mode != "exclusive":
            return self.limiter.slot(credential)
        return self._exclusive_slot(credential)

    @asynccontextmanager
    async def _exclusive_slot(self, credential: Credential) -> AsyncIterator[None]:
        lock = self._exclusive.setdefault(credential.user_id, asyncio.Lock())
        async with acquire_in_time(lock), self.limiter.exclusive_slot(credential.user_id):
            yield

    async def begin(self, credential: Credential, mode: TransactionMode) -> PostgreSQLConnection:
        if self._lock_secret is None:
            self._lock_secret = await self._read_lock_secret()
        return await self._pool.begin(begin_sql(credential, mode, self._lock_secret))

    async def _read_lock_secret(self) -> bytes:
        """Return a value that all replicas can read and no client can: the identifier of the database cluster."""
        connection = await self._pool.begin("BEGIN READ ONLY")
        try:
            ((secret,),) = await connection.fetch("SELECT system_identifier FROM pg_control_system()", [])
        finally:
            await asyncio.shield(connection.roll_back())
        return str(secret).encode()


def begin_sql(credential: Credential, mode: TransactionMode, lock_secret: bytes) -> str:
    """Return the SQL that begins the transaction. A valid user id has no quotes and no backslashes."""
    user_id = credential.user_id
    begin = "BEGIN READ ONLY" if mode == "read" else "BEGIN"
    timeout = f"SET LOCAL idle_in_transaction_session_timeout='{IDLE_IN_TRANSACTION_TIMEOUT}'"
    scoped = f"{begin};{timeout};SET LOCAL ROLE {RUNTIME_ROLE};SET LOCAL app.user_id='{user_id}'"
    if mode == "exclusive":
        return f"{scoped};SELECT pg_advisory_xact_lock({lock_key(user_id, lock_secret)})"
    if isinstance(credential, TokenSecret):
        return f"{scoped};SELECT pg_advisory_xact_lock_shared({lock_key(user_id, lock_secret)})"
    return scoped


@lru_cache(1024)
def lock_key(user_id: UserId, secret: bytes) -> int:
    """Return the key of the user's advisory lock.

    It is a keyed hash: nobody can find a user id whose key is that of another user, and so hold that user's lock.
    """
    return int.from_bytes(blake2b(user_id.encode(), key=secret, digest_size=8).digest(), "big", signed=True)


@lru_cache(256)
def _combine(*statements: str) -> str:
    """Return one statement that runs all of them (`WITH` with data-modifying statements).

    PostgreSQL runs the main statement first and then the others from the last to the first. They are listed
    backwards, so that they take their locks in the order in which they were written.
    """
    parts: list[str] = []
    offset = 0
    for sql in statements:
        parts.append(_PARAMETER.sub(lambda match, offset=offset: f"${int(match[1]) + offset}", sql))  # type: ignore[misc]
        offset += max(int(number) for number in _PARAMETER.findall(sql))
    main, *others = parts
    return f"WITH {', '.join(f'write{nth} AS ({sql})' for nth, sql in reversed(list(enumerate(others))))} {main}"
