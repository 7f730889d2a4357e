"""How a transaction and a user's door are opened: the one place where the databases differ."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any, Protocol
from weakref import WeakValueDictionary

from sqlalchemy.ext.asyncio import AsyncEngine

from latchkey.domain.credentials import Credential, TokenSecret, UserId
from latchkey.domain.ports import TransactionMode
from latchkey.infrastructure.database.sql.concurrency import ConcurrencyLimiter, acquire_in_time
from latchkey.infrastructure.database.sql.driver import (
    BEGIN_EXCLUSIVE,
    AsyncpgConnection,
    DriverConnection,
    SQLiteConnection,
    readers,
)

RUNTIME_ROLE = "latchkey_rt"
"""A role without login that owns nothing: row-level security binds it, whatever the login may do."""

HANGING_S = 5
"""Nothing of ours thinks so long between two statements."""
_SQLITE_BEGINS = {"read": "BEGIN", "write": "BEGIN IMMEDIATE", "exclusive": BEGIN_EXCLUSIVE}
_HANGING = f"SET LOCAL idle_in_transaction_session_timeout='{HANGING_S}s'"


class Dialect(Protocol):
    limiter: ConcurrencyLimiter

    def begin_sql(self, credential: Credential, mode: TransactionMode) -> str:
        """The SQL that begins a transaction for the user whom the credential names."""
        ...

    def driver(self, connection: Any) -> DriverConnection:
        """The driver's own connection, ready for statements."""
        ...

    def queue(self, credential: Credential, mode: TransactionMode) -> AbstractAsyncContextManager[Any]:
        """Held while a unit is open: those of one caller, and where they must, of one process wait for one another.

        Raises `TimeoutError` if that takes too long.
        """
        ...


class PostgreSQL:
    """Role and user are set for the transaction alone, in the very message that begins it.

    That is one round trip where SQLAlchemy's BEGIN and a `set_config` would be two. The text needs no
    escaping: whoever opens a unit has seen to it that the user id is one, without quotes and backslashes.

    A user's lock is shared by the units of their tokens and held alone by a serial one. Whoever waits for it is
    served in turn, so that no number of calls under a token can keep a serial unit waiting that revokes it.
    Those of one process wait for it here first, so that one user's crowd holds no more than one connection.

    A process that hangs in a transaction loses it, with its locks, before the lease of any turn has passed for long.
    """

    def __init__(self) -> None:
        self.limiter = ConcurrencyLimiter()
        self._queues: WeakValueDictionary[UserId, asyncio.Lock] = WeakValueDictionary()

    def begin_sql(self, credential: Credential, mode: TransactionMode) -> str:
        user_id = credential.user_id
        begin = "BEGIN READ ONLY" if mode == "read" else "BEGIN"
        door = f"{begin};{_HANGING};SET LOCAL ROLE {RUNTIME_ROLE};SET LOCAL app.user_id='{user_id}'"
        if mode == "exclusive":
            return f"{door};SELECT pg_advisory_xact_lock({_lock(user_id)})"
        if isinstance(credential, TokenSecret):
            return f"{door};SELECT pg_advisory_xact_lock_shared({_lock(user_id)})"
        return door

    def driver(self, connection: Any) -> DriverConnection:
        return AsyncpgConnection(connection)

    def queue(self, credential: Credential, mode: TransactionMode) -> AbstractAsyncContextManager[Any]:
        if mode != "exclusive":
            return self.limiter.slot(credential)
        return acquire_in_time(self._queues.setdefault(credential.user_id, asyncio.Lock()))


class SQLite:
    """One writer at a time, which takes its lock at once: to wait for it later fails as "database is locked"."""

    def __init__(self) -> None:
        self.limiter = ConcurrencyLimiter()
        self._writer = asyncio.Lock()
        self._readers = readers()

    def begin_sql(self, credential: Credential, mode: TransactionMode) -> str:
        return _SQLITE_BEGINS[mode]

    def driver(self, connection: Any) -> DriverConnection:
        return SQLiteConnection(connection, self._readers)

    def queue(self, credential: Credential, mode: TransactionMode) -> AbstractAsyncContextManager[Any]:
        return self.limiter.slot(credential) if mode == "read" else self._writing(credential)

    @asynccontextmanager
    async def _writing(self, credential: Credential) -> AsyncIterator[None]:
        """Of one caller's crowd, few wait for the file among the others."""
        async with self.limiter.slot(credential), acquire_in_time(self._writer):
            yield


def _lock(user_id: UserId) -> str:
    return f"hashtextextended('latchkey:{user_id}',0)"


def dialect_of(engine: AsyncEngine) -> Dialect:
    return PostgreSQL() if engine.dialect.name == "postgresql" else SQLite()
