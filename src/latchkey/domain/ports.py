"""Ports: the interfaces to databases, agents and identity providers. Each port has a contract suite for adapters."""

from collections.abc import AsyncGenerator, Callable
from contextlib import AbstractAsyncContextManager, AbstractContextManager
from datetime import datetime
from typing import Any, Literal, Protocol, TypeVar
from uuid import UUID

from msgspec import Struct

from latchkey.domain.agent import AgentEvent, AgentRun, RunMetrics
from latchkey.domain.conversation import ConversationId
from latchkey.domain.credentials import Credential, Owner, Scope, UserId
from latchkey.domain.repositories import (
    Artifacts,
    ContextTokens,
    Conversations,
    Deletions,
    Messages,
    QuotaUsages,
    Tasks,
)
from latchkey.domain.turn import TurnId, TurnStatus, Usage
from latchkey.domain.turn_event import TurnEvent
from latchkey.domain.turn_repositories import IdempotentCalls, Questions, ToolCalls, TurnEvents, Turns, Undo

R = TypeVar("R")


class UnitOfWork(Protocol):
    """One transaction in one scope, with its repositories.

    `now` is the time for everything in it. It is read after the wait for the user's lock, in an exclusive unit of work,
    and before waits for rows that other units of work have locked.
    """

    scope: Scope
    now: datetime

    @property
    def conversations(self) -> Conversations: ...

    @property
    def messages(self) -> Messages: ...

    @property
    def turns(self) -> Turns: ...

    @property
    def turn_events(self) -> TurnEvents: ...

    @property
    def tasks(self) -> Tasks: ...

    @property
    def artifacts(self) -> Artifacts: ...

    @property
    def tool_calls(self) -> ToolCalls: ...

    @property
    def questions(self) -> Questions: ...

    @property
    def idempotent_calls(self) -> IdempotentCalls: ...

    @property
    def context_tokens(self) -> ContextTokens: ...

    @property
    def deletions(self) -> Deletions: ...

    @property
    def quota_usage(self) -> QuotaUsages: ...

    @property
    def undo(self) -> Undo: ...

    def repository(self, kind: type[R]) -> R:
        """Return the repository of an app that has this class, bound to this unit of work: one object for each class.

        Raises `TypeError` if the class is not a repository.
        """
        ...

    def new_id(self) -> UUID:
        """Return a new UUIDv7. Ids of one process sort in the order in which they are made."""
        ...


class Transaction(UnitOfWork, Protocol):
    """A unit of work that can be committed. If it is not committed, closing it rolls it back."""

    @property
    def written(self) -> int:
        """How many bytes it has stored so far, including `ROW_BYTES` for each row."""
        ...

    async def commit(self) -> None:
        """Commit the transaction. Raises a `Failure` if the database refuses a write."""
        ...


TransactionMode = Literal["read", "write", "exclusive"]
"""`read`: no writes. `write`: concurrent with others. `exclusive`: holds the user's lock, so that it runs alone among
the exclusive units of work of the user and those of their context tokens."""


class UnitsOfWork(Protocol):
    """Opens units of work."""

    def open(self, credential: Credential, mode: TransactionMode) -> AbstractAsyncContextManager[Transaction]:
        """Resolve the credential and open a unit of work in its scope, in one transaction.

        Raises `Unauthenticated` for a context token that is unknown, expired or revoked, and
        `Unavailable` if the database does not answer.
        """
        ...


class ToolCallContext:
    """The base class of the context of a tool that runs outside a transaction, by which such tools are recognized."""


class ToolContexts(Protocol):
    """Opens the contexts of tools that run outside a transaction."""

    def open(self, scope: Scope, call_id: str, deadline: datetime) -> AbstractAsyncContextManager[Any]:
        """Open the context of one call, and release all that the tool has used when it is left.

        Raises `Unavailable` for an error of another service that the tool has not handled.
        """
        ...


class Subscription(Protocol):
    """The subscription of one client to one turn. Its buffer is small: a slow client reads the event log instead."""

    async def next_events(self, timeout_s: float) -> list[TurnEvent]:
        """Wait for events, and return those committed since the last call.

        Returns an empty list after the timeout, and if events may have been missed: then read the event log.
        """
        ...


class EventBus(Protocol):
    """Publishes the committed events of turns to subscribers, in this process and in others."""

    def subscribe(self, owner: Owner, turn_id: TurnId) -> AbstractContextManager[Subscription]:
        """Subscribe to the events that are committed to the turn from now on."""
        ...

    def wake(self, owner: Owner, turn_id: TurnId) -> None:
        """Let `next_events` of the turn's subscriptions return an empty list, in this process and in others."""
        ...

    def wake_all(self) -> None:
        """Let `next_events` of every subscription return an empty list at once."""
        ...


class Agent(Protocol):
    """Answers a message: calls a model, lets the model use tools over MCP, and yields events.

    `model` is the name of the model that it requests; None while that is unknown. The server may use another one.
    """

    name: str

    @property
    def model(self) -> str | None: ...

    def run(self, agent_run: AgentRun) -> AsyncGenerator[AgentEvent, None]:
        """Run one turn and yield its events as they happen. The answer is complete when the iterator ends.

        Raises a `TurnFailed` if there is no answer. Closing the iterator stops the run and everything it has started.
        """
        ...

    async def aclose(self) -> None:
        """Stop all runs and release connections, processes and files."""
        ...


AgentFactory = Callable[[Any], Agent]
"""Makes an agent, once in a process and with its first turn. The argument is `connect`, which opens an MCP client."""


class Identity(Protocol):
    """Verifies the JWTs of an identity provider."""

    async def authenticate(self, bearer: str, *, audience: str | None = None) -> UserId:
        """Verify the JWT and return its user. `audience` is accepted in addition to the configured one.

        Raises `Unauthenticated`, and `Unavailable` if the provider's keys cannot be fetched.
        """
        ...

    def timezone_of(self, bearer: str) -> str | None:
        """Return the time zone in a JWT (the claim `zoneinfo` of OpenID Connect) that has just been verified.

        None if it names none that exists.
        """
        ...

    def claims_of(self, bearer: str) -> tuple[tuple[str, str], ...]:
        """Return the kept claims of a JWT that has just been verified: names and JSON."""
        ...

    def keep_claims(self, names: frozenset[str]) -> None:
        """Keep these claims of JWTs that are verified from now on, for the instructions of assistants."""
        ...


class UseCaseCall(Struct, frozen=True):
    """One call of a use case, for the log. `outcome` is `ok`, `cancelled` or the code of a failure.

    `cause` is what made a service unavailable.
    """

    use_case: str
    user_id: UserId | None
    outcome: str
    duration_ms: float
    cause: str | None = None


class TurnReport(Struct, frozen=True, kw_only=True):
    """One turn that this process has run, for the log.

    - `assistant`: the assistant of the turn; None if its end could not be stored.
    - `model`: the model that answered, as its server names it; else the model that was requested.
    - `attempt`: the attempt of the turn that this process has run. Usage and tools are those of all attempts so far.
    - `status`, `code`, `detail`: as stored. The code is None for a completed turn. A turn that another attempt
      continues is `running`.
    - `cause`: what made it fail; clients never see it. `bug` is the exception of an internal error.
    - `is_stored`: False if the end of the turn could not be stored, or the turn was deleted.
    - `tools`: the number of calls of each tool; `failed_calls` of them failed; all took `tools_ms`.
    - `first_text_ms`: from the start of the run to the first text of the answer.
    """

    turn_id: TurnId
    conversation_id: ConversationId | None
    user_id: UserId
    agent: str
    assistant: str | None
    model: str | None
    attempt: int
    status: TurnStatus
    code: str | None
    detail: str | None
    cause: str | None
    is_stored: bool
    usage: Usage
    tools: dict[str, int]
    failed_calls: int
    tools_ms: int
    metrics: RunMetrics
    cached_tokens: int
    first_text_ms: float | None
    duration_ms: float
    bug: BaseException | None = None


class ToolBug(Struct, frozen=True):
    """An unknown exception of a tool, for the log. `call_id` is its id for other services, or the caller's."""

    tool: str
    call_id: str | None
    user_id: UserId
    exception: BaseException


LogEntry = UseCaseCall | TurnReport | ToolBug
CallLog = Callable[[LogEntry], None]
"""Logs each call of a use case, each turn, and each bug of a tool."""
