"""The unit of work: one transaction in one scope, opened by a credential."""

import asyncio
import sqlite3
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import asyncpg
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine
from uuid_utils.compat import uuid7

from latchkey.domain.ports import Isolation
from latchkey.domain.scope import Credential, Owner, Scope
from latchkey.infrastructure.database.context_tokens import SqlContextTokens
from latchkey.infrastructure.database.conversations import SqlConversations
from latchkey.infrastructure.database.dialect import dialect_of
from latchkey.infrastructure.database.engine import POOL_SIZE
from latchkey.infrastructure.database.failures import DEAD, translated
from latchkey.infrastructure.database.messages import SqlMessages
from latchkey.infrastructure.database.session import Session
from latchkey.infrastructure.database.tasks import SqlTasks
from latchkey.infrastructure.database.tool_calls import SqlToolCalls
from latchkey.infrastructure.database.turns import SqlTurns


class NothingCommitted(Exception):
    """A bug of ours: somebody caught the database's refusal, and committed as if it had not been."""


class SqlUnitOfWork:
    """The collections, bound to one scope and one transaction."""

    def __init__(self, connection: AsyncConnection, scope: Scope, now: datetime, *, read_only: bool) -> None:
        session = Session(connection, scope, read_only=read_only)
        self._connection = connection
        self.scope = scope
        self.now = now
        self.committed = False
        self.tool_calls = SqlToolCalls(session)
        self.conversations = SqlConversations(session)
        self.messages = SqlMessages(session, self.tool_calls)
        self.turns = SqlTurns(session)
        self.tasks = SqlTasks(session)
        self.context_tokens = SqlContextTokens(session)

    def new_id(self) -> UUID:
        return uuid7()

    async def commit(self) -> None:
        if await send(self._connection, "COMMIT") == "ROLLBACK":
            raise NothingCommitted("The database had refused a statement of this unit, and so kept nothing of it.")
        self.committed = True


class SqlUnitsOfWork:
    """Opens units of work on one engine."""

    def __init__(self, engine: AsyncEngine, now: Callable[[], datetime] = lambda: datetime.now(UTC)) -> None:
        self._engine = engine
        self._dialect = dialect_of(engine)
        self._now = now

    @asynccontextmanager
    async def open(self, credential: Credential, isolation: Isolation) -> AsyncIterator[SqlUnitOfWork]:
        opening = self._dialect.opening(credential.user_id, isolation)
        with translated():
            async with self._dialect.queue(isolation):
                connection = await self._begin(opening)
                work = None
                try:
                    now = self._now()
                    scope = await self._scope(connection, credential, isolation, now)
                    work = SqlUnitOfWork(connection, scope, now, read_only=isolation == "read")
                    yield work
                finally:
                    await asyncio.shield(_close(connection, committed=work is not None and work.committed))

    async def _begin(self, opening: str) -> AsyncConnection:
        """A connection in a transaction. A pooled one that turns out to be dead is replaced: nothing was done on it."""
        for attempts_left in reversed(range(POOL_SIZE + 1)):
            connection = await self._engine.connect()
            try:
                await send(connection, opening)
            except DEAD:
                await connection.invalidate()
                await connection.close()
                if not attempts_left:
                    raise
            except BaseException:
                await asyncio.shield(_close(connection, committed=False))
                raise
            else:
                return connection
        raise AssertionError  # the last attempt returns or raises

    async def _scope(
        self, connection: AsyncConnection, credential: Credential, isolation: Isolation, now: datetime
    ) -> Scope:
        if isinstance(credential, Owner):
            return Scope(credential.user_id)
        tokens = SqlContextTokens(Session(connection, Scope(credential.user_id, frozenset()), read_only=True))
        return await tokens.resolve(credential, now, hold=isolation != "read")


async def send(connection: AsyncConnection, sql: str) -> Any:
    """A statement that begins or ends a transaction, past SQLAlchemy, which would begin its own; what the driver says."""
    raw = await connection.get_raw_connection()
    return await raw.driver_connection.execute(sql)  # type: ignore[union-attr] # asyncpg's and aiosqlite's are untyped here


async def _close(connection: AsyncConnection, *, committed: bool) -> None:
    """Give the connection back as it came, or not at all; the database then ends its transaction by itself."""
    try:
        if not committed and not connection.invalidated:
            await send(connection, "ROLLBACK")
    except (*DEAD, asyncpg.PostgresError, sqlite3.Error):
        await connection.invalidate()
    finally:
        await connection.close()
