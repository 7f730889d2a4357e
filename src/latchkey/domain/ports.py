"""All that Latchkey asks of the world. An adapter is right when it passes the contract suite of its port."""

from collections.abc import AsyncGenerator, Callable
from contextlib import AbstractAsyncContextManager, AbstractContextManager
from datetime import datetime
from typing import Literal, Protocol
from uuid import UUID

from msgspec import Struct

from latchkey.domain.agent import AgentEvent, AgentRun
from latchkey.domain.credentials import Credential, Owner, Scope, UserId
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
from latchkey.domain.turn import TurnId
from latchkey.domain.turn_event import TurnEvent


class UnitOfWork(Protocol):
    """One transaction in one scope: what a use case works on.

    `now` is the one time of everything in it; where writers wait for one another, it may be from before the wait.
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
    def context_tokens(self) -> ContextTokens: ...

    @property
    def quota_usage(self) -> QuotaUsages: ...

    def new_id(self) -> UUID:
        """A new UUIDv7; later ones of one process sort after earlier ones."""
        ...


class Transaction(UnitOfWork, Protocol):
    """A unit of work as its opener holds it. What is not committed when it closes never happened."""

    @property
    def written(self) -> int:
        """How many bytes have been stored in it so far, `ROW_BYTES` for each row included."""
        ...

    async def commit(self) -> None: ...


TransactionMode = Literal["read", "write", "exclusive"]
"""`read` units may not write. `exclusive` ones of one user run one after the other, and never beside one of a token."""


class UnitsOfWork(Protocol):
    """Opens units of work: the only way to the data."""

    def open(self, credential: Credential, mode: TransactionMode) -> AbstractAsyncContextManager[Transaction]:
        """Resolve the credential and open its scope, in one transaction.

        Raises `Unauthenticated` for a context token that is unknown, expired or revoked, and
        `Unavailable` if the database does not answer.
        """
        ...


class Subscription(Protocol):
    """The news of one turn for one follower. It holds little: a slow follower reads the log instead."""

    async def next_events(self, timeout_s: float) -> list[TurnEvent]:
        """Events that were committed since the last time.

        An empty list means that there may be some in the log, or that so many seconds have passed.
        """
        ...


class EventBus(Protocol):
    """Tells what was committed to turns, by this process and by others."""

    def subscribe(self, owner: Owner, turn_id: TurnId) -> AbstractContextManager[Subscription]:
        """Hear of everything that is committed to the turn from now on."""
        ...

    def wake_all(self) -> None:
        """Give every follower no news at once."""
        ...


class Agent(Protocol):
    """Carries a turn: asks a model, lets it use its tools over MCP, and tells what it says."""

    name: str

    def run(self, agent_run: AgentRun) -> AsyncGenerator[AgentEvent, None]:
        """The events of the turn, as they happen; it is complete when they end.

        Raises a `TurnFailed` that says why there is no answer. Closing the iterator stops the agent,
        and leaves nothing running.
        """
        ...

    async def aclose(self) -> None:
        """Stop all runs and release connections, processes and files."""
        ...


class Identity(Protocol):
    """Tells who somebody is by the token that their identity provider gave them."""

    async def authenticate(self, bearer: str, *, audience: str | None = None) -> UserId:
        """The user whom the JWT names, if it is for us (or for `audience`, an additional one).

        Raises `Unauthenticated`, or `Unavailable` if the provider's keys cannot be had.
        """
        ...


class UseCaseCall(Struct, frozen=True):
    """One call through the door, as it is logged. `outcome` is `ok`, `cancelled` or the code of a failure."""

    use_case: str
    user_id: UserId | None
    outcome: str
    duration_ms: float


CallLog = Callable[[UseCaseCall], None]
"""Where each call through the door is written down."""
