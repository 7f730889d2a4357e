"""The unit of work: one transaction in one scope, opened by a credential."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncEngine
from uuid_utils.compat import uuid7

from latchkey.domain.credentials import Credential, Owner, Scope, parse_user_id
from latchkey.domain.errors import Unauthenticated
from latchkey.domain.ports import TransactionMode
from latchkey.domain.repositories import (
    Artifacts,
    ContextTokens,
    Conversations,
    Messages,
    QuotaUsages,
    Tasks,
    ToolCalls,
    TurnEvents,
    Turns,
)
from latchkey.infrastructure.database.errors import translated
from latchkey.infrastructure.database.events.local import LocalEventBus
from latchkey.infrastructure.database.repositories.artifacts import SqlArtifacts
from latchkey.infrastructure.database.repositories.context_tokens import SqlContextTokens
from latchkey.infrastructure.database.repositories.conversations import SqlConversations
from latchkey.infrastructure.database.repositories.messages import SqlMessages
from latchkey.infrastructure.database.repositories.quota_usage import SqlQuotaUsages
from latchkey.infrastructure.database.repositories.tasks import SqlTasks
from latchkey.infrastructure.database.repositories.tool_calls import SqlToolCalls
from latchkey.infrastructure.database.repositories.turn_events import SqlTurnEvents
from latchkey.infrastructure.database.repositories.turn_state import TurnState
from latchkey.infrastructure.database.repositories.turns import SqlTurns
from latchkey.infrastructure.database.sql.concurrency import ConcurrencyLimiter
from latchkey.infrastructure.database.sql.dialects import dialect_of
from latchkey.infrastructure.database.sql.driver import DriverConnection
from latchkey.infrastructure.database.sql.pool import ConnectionPool
from latchkey.infrastructure.database.sql.session import Session
from latchkey.infrastructure.database.sql.statements import Statements


class NothingCommitted(Exception):
    """A bug of ours: somebody caught the database's refusal, and committed as if it had not been."""


class SqlUnitOfWork:
    """The collections, bound to one scope and one transaction."""

    def __init__(
        self,
        session: Session,
        now: datetime,
        event_bus: LocalEventBus,
        limiter: ConcurrencyLimiter,
        turn_state: TurnState | None,
    ) -> None:
        self._limiter = limiter
        self._session = session
        self._event_bus = event_bus
        self.scope = session.scope
        self.now = now
        self.committed = False
        tool_calls = SqlToolCalls(session)
        self.tool_calls: ToolCalls = tool_calls
        self.conversations: Conversations = SqlConversations(session)
        self.messages: Messages = SqlMessages(session, tool_calls)
        self.turns: Turns = SqlTurns(session, turn_state)
        self._events = SqlTurnEvents(session)
        self.turn_events: TurnEvents = self._events
        self.tasks: Tasks = SqlTasks(session)
        self.artifacts: Artifacts = SqlArtifacts(session)
        self._tokens = SqlContextTokens(session)
        self.context_tokens: ContextTokens = self._tokens
        self.quota_usage: QuotaUsages = SqlQuotaUsages(session)

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
            self._limiter.mark_verified(secret)
        if self._events.added:
            self._event_bus.publish(self.scope.user_id, self._events.added)


class SqlUnitsOfWork:
    """Opens units of work on one engine. What they commit to turns is told to the feed."""

    def __init__(
        self,
        engine: AsyncEngine,
        event_bus: LocalEventBus | None = None,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._event_bus = event_bus or LocalEventBus()
        self._dialect = dialect_of(engine)
        self._pool = ConnectionPool(engine, self._dialect)
        self._statements = Statements(engine.dialect)
        self._now = now

    @asynccontextmanager
    async def open(self, credential: Credential, mode: TransactionMode) -> AsyncIterator[SqlUnitOfWork]:
        if parse_user_id(credential.user_id) is None:
            raise Unauthenticated("This is not a user: an id has 1 to 128 characters of A-Z a-z 0-9 . _ ~ : @ | -")
        begin_sql = self._dialect.begin_sql(credential, mode)
        with translated():
            async with self._dialect.queue(credential, mode):
                connection = await self._pool.begin(begin_sql)
                uow = None
                try:
                    now = self._now()
                    scope, turn_state = await self._scope(connection.driver, credential, mode, now)
                    session = self._session(connection.driver, scope, read_only=mode == "read")
                    uow = SqlUnitOfWork(session, now, self._event_bus, self._dialect.limiter, turn_state)
                    yield uow
                finally:
                    if uow is not None and uow.committed:
                        connection.release()
                    else:
                        await asyncio.shield(connection.roll_back())

    async def _scope(
        self, driver: DriverConnection, credential: Credential, mode: TransactionMode, now: datetime
    ) -> tuple[Scope, TurnState | None]:
        """What the credential opens, and for a token that may write, how far its turn has come."""
        if isinstance(credential, Owner):
            return Scope(credential.user_id), None
        tokens = SqlContextTokens(self._session(driver, Scope(credential.user_id, frozenset()), read_only=True))
        if mode == "read":
            scope, turn_state = await tokens.resolve(credential, now), None
        else:
            scope, turn_state = await tokens.hold(credential, now)
        self._dialect.limiter.mark_verified(credential)
        return scope, turn_state

    def _session(self, driver: DriverConnection, scope: Scope, *, read_only: bool) -> Session:
        return Session(driver, self._statements, scope, read_only=read_only)
