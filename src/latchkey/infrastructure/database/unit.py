"""The unit of work: one transaction in one scope, opened by a credential."""

import asyncio
import sqlite3
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from uuid import UUID

import asyncpg
from sqlalchemy import PoolProxiedConnection
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine
from uuid_utils.compat import uuid7

from latchkey.domain.errors import Unauthenticated
from latchkey.domain.ports import Isolation
from latchkey.domain.repositories import (
    Allowances,
    Artifacts,
    ContextTokens,
    Conversations,
    Messages,
    Tasks,
    ToolCalls,
    TurnEvents,
    Turns,
)
from latchkey.domain.scope import Credential, Owner, Scope, user_id_of
from latchkey.infrastructure.database.allowances import SqlAllowances
from latchkey.infrastructure.database.artifacts import SqlArtifacts
from latchkey.infrastructure.database.context_tokens import SqlContextTokens
from latchkey.infrastructure.database.conversations import SqlConversations
from latchkey.infrastructure.database.dialect import dialect_of
from latchkey.infrastructure.database.engine import POOL_SIZE, POOL_TIMEOUT_S
from latchkey.infrastructure.database.failures import DEAD, translated
from latchkey.infrastructure.database.feed import LocalFeed
from latchkey.infrastructure.database.messages import SqlMessages
from latchkey.infrastructure.database.prepared import Statements
from latchkey.infrastructure.database.session import Session
from latchkey.infrastructure.database.shares import Shares
from latchkey.infrastructure.database.standing import Standing
from latchkey.infrastructure.database.tasks import SqlTasks
from latchkey.infrastructure.database.tool_calls import SqlToolCalls
from latchkey.infrastructure.database.turn_events import SqlTurnEvents
from latchkey.infrastructure.database.turns import SqlTurns
from latchkey.infrastructure.database.wires import Wire


class NothingCommitted(Exception):
    """A bug of ours: somebody caught the database's refusal, and committed as if it had not been."""


class SqlUnitOfWork:
    """The collections, bound to one scope and one transaction."""

    def __init__(
        self, session: Session, now: datetime, feed: LocalFeed, shares: Shares, standing: Standing | None
    ) -> None:
        self._shares = shares
        self._session = session
        self._feed = feed
        self.scope = session.scope
        self.now = now
        self.committed = False
        ledger = SqlToolCalls(session)
        self.tool_calls: ToolCalls = ledger
        self.conversations: Conversations = SqlConversations(session)
        self.messages: Messages = SqlMessages(session, ledger)
        self.turns: Turns = SqlTurns(session, standing)
        self._events = SqlTurnEvents(session)
        self.turn_events: TurnEvents = self._events
        self.tasks: Tasks = SqlTasks(session)
        self.artifacts: Artifacts = SqlArtifacts(session)
        self._tokens = SqlContextTokens(session)
        self.context_tokens: ContextTokens = self._tokens
        self.allowances: Allowances = SqlAllowances(session)

    @property
    def written(self) -> int:
        return self._session.written

    def new_id(self) -> UUID:
        return uuid7()

    async def commit(self) -> None:
        if not await self._session.commit():
            raise NothingCommitted("The database had refused a statement of this unit, and so kept nothing of it.")
        self.committed = True
        for secret in self._tokens.added:
            self._shares.meet(secret)
        if self._events.added:
            self._feed.tell(self.scope.user_id, self._events.added)


class SqlUnitsOfWork:
    """Opens units of work on one engine. What they commit to turns is told to the feed."""

    def __init__(
        self,
        engine: AsyncEngine,
        feed: LocalFeed | None = None,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._engine = engine
        self._feed = feed or LocalFeed()
        self._dialect = dialect_of(engine)
        self._statements = Statements(engine.dialect)
        self._now = now

    @asynccontextmanager
    async def open(self, credential: Credential, isolation: Isolation) -> AsyncIterator[SqlUnitOfWork]:
        if user_id_of(credential.user_id) is None:
            raise Unauthenticated("This is not a user: an id has 1 to 128 characters of A-Z a-z 0-9 . _ ~ : @ | -")
        opening = self._dialect.opening(credential, isolation)
        with translated():
            async with self._dialect.queue(credential, isolation):
                connection, wire = await self._begin(opening)
                work = None
                try:
                    now = self._now()
                    scope, standing = await self._scope(wire, credential, isolation, now)
                    session = self._session(wire, scope, read_only=isolation == "read")
                    work = SqlUnitOfWork(session, now, self._feed, self._dialect.shares, standing)
                    yield work
                finally:
                    if work is not None and work.committed:
                        _give_back(connection)
                    else:
                        await asyncio.shield(_roll_back(connection, wire))

    async def _begin(self, opening: str) -> tuple[AsyncConnection, Wire]:
        """A connection in a transaction. A pooled one that turns out to be dead is replaced: nothing was done on it."""
        for attempts_left in reversed(range(POOL_SIZE + 1)):
            connection = await self._engine.connect()
            wire = self._dialect.wire(_pooled(connection).driver_connection)
            try:
                await wire.begin(opening)
            except DEAD as error:
                await connection.invalidate()
                await connection.close()
                # One that is silent took all the time there is, and so may each of the others.
                if not attempts_left or isinstance(error, TimeoutError):
                    raise
            except BaseException:
                await asyncio.shield(_roll_back(connection, wire))
                raise
            else:
                return connection, wire
        raise AssertionError  # the last attempt returns or raises

    async def _scope(
        self, wire: Wire, credential: Credential, isolation: Isolation, now: datetime
    ) -> tuple[Scope, Standing | None]:
        """What the credential opens, and for a token that may write, how far its turn has come."""
        if isinstance(credential, Owner):
            return Scope(credential.user_id), None
        tokens = SqlContextTokens(self._session(wire, Scope(credential.user_id, frozenset()), read_only=True))
        if isolation == "read":
            scope, standing = await tokens.resolve(credential, now), None
        else:
            scope, standing = await tokens.hold(credential, now)
        self._dialect.shares.meet(credential)
        return scope, standing

    def _session(self, wire: Wire, scope: Scope, *, read_only: bool) -> Session:
        return Session(wire, self._statements, scope, read_only=read_only)


def _pooled(connection: AsyncConnection) -> PoolProxiedConnection:
    if connection.sync_connection is None:
        raise AssertionError  # only before it is connected
    return connection.sync_connection.connection


def _give_back(connection: AsyncConnection) -> None:
    """Without waiting: the pool resets nothing, because a transaction of ours is always ended by us."""
    if connection.sync_connection is not None:
        connection.sync_connection.close()


async def _roll_back(connection: AsyncConnection, wire: Wire) -> None:
    """Give the connection back as it came, or not at all; the database then ends its transaction by itself."""
    try:
        # asyncpg first waits, however long it takes, for the server to hear that a statement is given up.
        async with asyncio.timeout(POOL_TIMEOUT_S):
            await wire.roll_back()
    except (*DEAD, asyncpg.PostgresError, sqlite3.Error):
        await connection.invalidate()
    finally:
        await connection.close()
