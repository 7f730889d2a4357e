"""The unit of work: one transaction in one scope, opened by a credential."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncEngine
from uuid_utils.compat import uuid7

from latchkey.domain.credentials import Credential, Owner, Scope, user_id_of
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
from latchkey.infrastructure.database.errors import translated
from latchkey.infrastructure.database.events.local import LocalFeed
from latchkey.infrastructure.database.repositories.artifacts import SqlArtifacts
from latchkey.infrastructure.database.repositories.context_tokens import SqlContextTokens
from latchkey.infrastructure.database.repositories.conversations import SqlConversations
from latchkey.infrastructure.database.repositories.messages import SqlMessages
from latchkey.infrastructure.database.repositories.quota_usage import SqlAllowances
from latchkey.infrastructure.database.repositories.tasks import SqlTasks
from latchkey.infrastructure.database.repositories.tool_calls import SqlToolCalls
from latchkey.infrastructure.database.repositories.turn_events import SqlTurnEvents
from latchkey.infrastructure.database.repositories.turn_state import Standing
from latchkey.infrastructure.database.repositories.turns import SqlTurns
from latchkey.infrastructure.database.sql.concurrency import Shares
from latchkey.infrastructure.database.sql.dialects import dialect_of
from latchkey.infrastructure.database.sql.driver import Wire
from latchkey.infrastructure.database.sql.pool import Connections
from latchkey.infrastructure.database.sql.session import Session
from latchkey.infrastructure.database.sql.statements import Statements


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
        self._feed = feed or LocalFeed()
        self._dialect = dialect_of(engine)
        self._connections = Connections(engine, self._dialect)
        self._statements = Statements(engine.dialect)
        self._now = now

    @asynccontextmanager
    async def open(self, credential: Credential, isolation: Isolation) -> AsyncIterator[SqlUnitOfWork]:
        if user_id_of(credential.user_id) is None:
            raise Unauthenticated("This is not a user: an id has 1 to 128 characters of A-Z a-z 0-9 . _ ~ : @ | -")
        opening = self._dialect.opening(credential, isolation)
        with translated():
            async with self._dialect.queue(credential, isolation):
                connection = await self._connections.begin(opening)
                work = None
                try:
                    now = self._now()
                    scope, standing = await self._scope(connection.wire, credential, isolation, now)
                    session = self._session(connection.wire, scope, read_only=isolation == "read")
                    work = SqlUnitOfWork(session, now, self._feed, self._dialect.shares, standing)
                    yield work
                finally:
                    if work is not None and work.committed:
                        connection.give_back()
                    else:
                        await asyncio.shield(connection.roll_back())

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
