"""The unit of work: one transaction in the scope of one credential, with its repositories."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from functools import cached_property, partial
from typing import Any, TypeVar, cast
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncEngine
from uuid_utils.compat import uuid7

from latchkey.domain.concurrency import ConcurrencyLimiter
from latchkey.domain.credentials import USER_ID_RULE, Credential, Delegate, Owner, Scope, TokenSecret, parse_user_id
from latchkey.domain.errors import Unauthenticated
from latchkey.domain.ports import TransactionMode
from latchkey.domain.repositories import (
    Artifacts,
    ContextTokens,
    Conversations,
    Deletions,
    Messages,
    QuotaUsages,
    Tasks,
)
from latchkey.domain.turn_event import TurnEvent
from latchkey.domain.turn_repositories import IdempotentCalls, Questions, ToolCalls, TurnEvents, Turns, Undo
from latchkey.infrastructure.database.app_schema import NO_APP, AppSchema
from latchkey.infrastructure.database.errors import mapped_errors
from latchkey.infrastructure.database.event_bus import LocalEventBus
from latchkey.infrastructure.database.repositories.artifacts import SqlArtifacts
from latchkey.infrastructure.database.repositories.context_tokens import SqlContextTokens
from latchkey.infrastructure.database.repositories.conversations import SqlConversations
from latchkey.infrastructure.database.repositories.deletion import SqlDeletions
from latchkey.infrastructure.database.repositories.idempotent_calls import SqlIdempotentCalls
from latchkey.infrastructure.database.repositories.messages import SqlMessages
from latchkey.infrastructure.database.repositories.questions import SqlQuestions
from latchkey.infrastructure.database.repositories.quota_usage import SqlQuotaUsages
from latchkey.infrastructure.database.repositories.tasks import SqlTasks
from latchkey.infrastructure.database.repositories.tool_calls import SqlToolCalls
from latchkey.infrastructure.database.repositories.turn_events import SqlTurnEvents
from latchkey.infrastructure.database.repositories.turns import SqlTurns, TurnState
from latchkey.infrastructure.database.repositories.undo import SqlUndo
from latchkey.infrastructure.database.sql.driver import DriverConnection
from latchkey.infrastructure.database.sql.engine import create_backend
from latchkey.infrastructure.database.sql.recording import record_write
from latchkey.infrastructure.database.sql.session import Session, StatementCache

R = TypeVar("R")


class CommitRefused(Exception):
    """A bug of ours: a caller caught an error of the database and then committed. The database rolled back."""


class SqlUnitOfWork:
    """One transaction in one scope. A repository is created when it is first used."""

    def __init__(
        self,
        session: Session,
        now: datetime,
        event_bus: LocalEventBus,
        limiter: ConcurrencyLimiter,
        turn_state: TurnState | None,
        schema: AppSchema,
    ) -> None:
        self.session = session
        self._event_bus = event_bus
        self._limiter = limiter
        self._turn_state = turn_state
        self._schema = schema
        self._repositories: dict[type, Any] = {}
        self._added_secrets: list[TokenSecret] = []
        self._added_events: list[TurnEvent] = []
        self.scope = session.scope
        self.now = now
        self.committed = False

    @cached_property
    def conversations(self) -> Conversations:
        return SqlConversations(self.session, self.now)

    @cached_property
    def messages(self) -> Messages:
        return SqlMessages(self.session)

    @cached_property
    def turns(self) -> Turns:
        return SqlTurns(self.session, self._turn_state)

    @cached_property
    def turn_events(self) -> TurnEvents:
        return SqlTurnEvents(self.session, self._added_events)

    @cached_property
    def tool_calls(self) -> ToolCalls:
        return SqlToolCalls(self.session)

    @cached_property
    def questions(self) -> Questions:
        return SqlQuestions(self.session)

    @cached_property
    def tasks(self) -> Tasks:
        return SqlTasks(self.session)

    @cached_property
    def artifacts(self) -> Artifacts:
        return SqlArtifacts(self.session)

    @cached_property
    def idempotent_calls(self) -> IdempotentCalls:
        return SqlIdempotentCalls(self.session)

    @cached_property
    def context_tokens(self) -> ContextTokens:
        return SqlContextTokens(self.session, self._added_secrets)

    @cached_property
    def deletions(self) -> Deletions:
        return SqlDeletions(self.session)

    @cached_property
    def quota_usage(self) -> QuotaUsages:
        return SqlQuotaUsages(self.session, self._schema.entities)

    @cached_property
    def undo(self) -> Undo:
        return SqlUndo(self.session, self.now, self._schema.entities)

    def repository(self, kind: type[R]) -> R:
        repository = self._repositories.get(kind)
        if repository is None:
            repository = self._repositories[kind] = cast("Any", kind)(self)
        return cast("R", repository)

    @property
    def written(self) -> int:
        return self.session.written

    def new_id(self) -> UUID:
        return uuid7()

    async def commit(self) -> None:
        if not await self.session.commit():
            raise CommitRefused("The database had refused a statement of this unit of work and rolled it back.")
        self.committed = True
        for secret in self._added_secrets:
            self._limiter.mark_verified(secret)
        if self._added_events:
            self._event_bus.publish(self.scope.user_id, self._added_events)


class SqlUnitsOfWork:
    """Opens units of work on one engine. Events that they commit are published on the event bus."""

    def __init__(
        self,
        engine: AsyncEngine,
        event_bus: LocalEventBus | None = None,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
        schema: AppSchema = NO_APP,
    ) -> None:
        self._schema = schema
        self._event_bus = event_bus or LocalEventBus()
        self._record = partial(record_write, schema.entities)
        self._backend = create_backend(engine)
        self._statements = StatementCache(engine.dialect)
        self.read_clock = now
        self.clock_offset = timedelta()
        """Added to this machine's time, so that all replicas use the database's time. See `synchronized_clock`."""

    @asynccontextmanager
    async def open(self, credential: Credential, mode: TransactionMode) -> AsyncIterator[SqlUnitOfWork]:
        if parse_user_id(credential.user_id) is None:
            raise Unauthenticated(f"Invalid user id: it must be {USER_ID_RULE}.")
        with mapped_errors():
            if isinstance(credential, TokenSecret) and not self._backend.limiter.is_verified(credential):
                await self._verify(credential)
            async with self._backend.queue(credential, mode):
                connection = await self._backend.begin(credential, mode)
                uow = None
                try:
                    now = self._now()
                    scope, turn_state = await self._scope(connection, credential, mode, now)
                    session = self._session(connection, scope, read_only=mode == "read")
                    uow = SqlUnitOfWork(session, now, self._event_bus, self._backend.limiter, turn_state, self._schema)
                    yield uow
                finally:
                    if uow is not None:
                        uow.session.end()
                    if uow is not None and uow.committed:
                        connection.release()
                    else:
                        await asyncio.shield(connection.roll_back())

    async def _verify(self, secret: TokenSecret) -> None:
        """Look up a token that this process does not know. Raises `Unauthenticated`.

        This has a transaction of its own, which ends at once and takes no lock: a token can claim any user.
        """
        limiter = self._backend.limiter
        async with limiter.verification_slot(secret):
            connection = await self._backend.begin(Owner(secret.user_id), "read")
            try:
                session = self._session(connection, Scope(secret.user_id, frozenset()), read_only=True)
                await SqlContextTokens(session, []).resolve(secret, self._now())
            finally:
                await asyncio.shield(connection.roll_back())
        limiter.mark_verified(secret)

    async def _scope(
        self, driver: DriverConnection, credential: Credential, mode: TransactionMode, now: datetime
    ) -> tuple[Scope, TurnState | None]:
        """Return the scope of the credential and, for a token that may write, the state of its turn."""
        if isinstance(credential, Delegate):
            return credential.scope, None
        if isinstance(credential, Owner):
            return Scope(credential.user_id), None
        tokens = SqlContextTokens(self._session(driver, Scope(credential.user_id, frozenset()), read_only=True), [])
        if mode == "read":
            return await tokens.resolve(credential, now), None
        return await tokens.resolve_and_lock(credential, now)

    def _now(self) -> datetime:
        return self.read_clock() + self.clock_offset

    def _session(self, driver: DriverConnection, scope: Scope, *, read_only: bool) -> Session:
        record = self._record if scope.turn_id is not None and not read_only else None
        return Session(driver, self._statements, scope, read_only=read_only, record=record)
