"""Turns: a turn is one message of the user, the run of the agent, and how it ended."""

from datetime import datetime
from typing import Annotated, Any, Literal, NewType
from uuid import UUID

from msgspec import Meta, Struct

from latchkey.domain.conversation import ConversationId
from latchkey.domain.errors import Conflict, TurnLost
from latchkey.domain.values import PLAIN, Instant

TurnId = NewType("TurnId", UUID)
TurnStatus = Literal["running", "waiting", "completed", "failed", "cancelled", "interrupted"]
_UNFINISHED = frozenset[TurnStatus](("running", "waiting"))
AgentName = Annotated[
    str,
    Meta(title="AgentName", description="The agent that answers: a built-in one, or one that the service's app adds."),
]
"""The schemas of `AgentName`, `ProblemCode` and `ArtifactType` list the values that the service knows.

A stored value can be another one: a newer release, or another app, may have written it.
"""
Metadata = Annotated[
    dict[
        Annotated[str, Meta(min_length=1, max_length=64, pattern=PLAIN)],
        Annotated[str, Meta(max_length=512, pattern=PLAIN)],
    ],
    Meta(
        max_length=16, description="Up to 16 pairs of strings, which the client chose. They are stored with the turn."
    ),
]
FailureCode = Annotated[
    str, Meta(title="ProblemCode", description="The kind of a failure. A later release may add others.")
]


UNDOABLE, NOT_UNDOABLE = 1, 2
"""The bits of `Turn.effects`: changes that are recorded, and effects that cannot be undone."""

MAX_TOKENS = 2**53 - 1
"""The largest number that every JSON reader keeps exactly. Servers were seen to report larger ones."""


class Usage(Struct, frozen=True):
    """The usage of the model: requests and tokens. A sum has at most `MAX_TOKENS`, so that it can be stored."""

    requests: int = 0
    input_tokens: int = 0
    output_tokens: int = 0

    def __add__(self, more: "Usage") -> "Usage":
        return Usage(
            self.requests + more.requests,
            min(self.input_tokens + more.input_tokens, MAX_TOKENS),
            min(self.output_tokens + more.output_tokens, MAX_TOKENS),
        )


class TurnError(Struct, frozen=True, omit_defaults=True):
    """Why a turn failed. `code` is one of the published codes; `retry_after` is in seconds."""

    code: FailureCode
    detail: str
    retry_after: int | None = None


class Idempotency(Struct, frozen=True):
    """The client's idempotency key, and a digest of the request body."""

    key: str
    fingerprint: str


class ClientRequest(Struct, frozen=True):
    """The request that starts a turn: its id, under which it is logged, and its idempotency key if it has one.

    `message_id` is the client's own id of the user's message. It is stored with the message, not with the turn.
    `claims` and `timezone` are those of the user's credential.
    `run_id` is the client's own id of the turn; clients are free to repeat one.
    """

    id: str | None = None
    idempotency: Idempotency | None = None
    message_id: str | None = None
    run_id: str | None = None
    claims: tuple[tuple[str, str], ...] = ()
    timezone: str | None = None


class RunInput(Struct, frozen=True, omit_defaults=True):
    """What the request that started a turn has determined, and what another process needs to continue it.

    `claims` are those of the user's credential that the instructions name.
    """

    artifact_generation: bool = False
    model: str | None = None
    context: dict[str, Any] = {}
    claims: tuple[tuple[str, str], ...] = ()
    timezone: str | None = None


class Turn(Struct, frozen=True, kw_only=True):
    """One turn. The process that runs it renews its lease; if the lease has expired, that process is gone.

    Another process may then continue the turn: that is its next `attempt`. Writes of an earlier attempt are refused.
    `recoveries` counts the attempts that continued after a process had died. A waiting turn has calls that the user is
    asked about, and no process; its lease ends when all of them are decided or expired: then it is to be continued.

    `assistant` and the digest of its version are None for turns of early releases, the digest also for file turns.
    `model` is the model that answered, as its server names it, else the requested one; None until one is known.
    `last_event` is the number of the newest event; `answer_length` is the number of characters of the answer in the
    events so far. `replaced_by` is the turn that has replaced it: it is no longer part of the history. `effects` says
    what its tool calls did, and `undone_at` when that was undone.
    """

    id: TurnId
    conversation_id: ConversationId
    status: TurnStatus
    agent: AgentName
    assistant: str | None = None
    assistant_digest: str | None = None
    metadata: Metadata = {}
    model: str | None = None
    error: TurnError | None = None
    usage: Usage = Usage()
    started_at: Instant
    finished_at: Instant | None = None
    lease_until: Instant
    last_event: int = 0
    answer_length: int = 0
    request: ClientRequest = ClientRequest()
    replaced_by: TurnId | None = None
    attempt: int = 1
    recoveries: int = 0
    run_input: RunInput = RunInput()
    effects: int = 0
    undone_at: Instant | None = None

    @property
    def can_undo(self) -> bool:
        """Whether its tool calls have changed something, and all of it is recorded and not undone yet."""
        return self.effects == UNDOABLE and self.finished_at is not None and self.undone_at is None

    def is_running(self, now: datetime) -> bool:
        """Whether it is stored as running and its lease has not expired."""
        return self.status == "running" and now < self.lease_until

    @property
    def is_released(self) -> bool:
        """Whether the process that ran it has handed it over: its lease ends when the turn began."""
        return self.lease_until == self.started_at

    def is_lost(self, now: datetime) -> bool:
        """Whether it is to be continued: its lease has expired, and it is stored as running or waiting."""
        return self.status in _UNFINISHED and now >= self.lease_until

    def can_continue(self, attempts: int) -> bool:
        """Whether another attempt is allowed, with at most this many after a process has died."""
        return self.status == "waiting" or self.is_released or self.recoveries + 1 < attempts

    def check_running(self, now: datetime, attempt: int | None = None) -> None:
        """Raises `Conflict` if the turn has ended, its lease has expired, or another attempt runs it."""
        if not self.is_running(now) or (attempt is not None and attempt != self.attempt):
            raise Conflict("The turn has ended, or its lease has expired.", turn_id=self.id)

    def check_not_lost(self, now: datetime) -> None:
        """Raises `TurnLost` if the turn is to be continued."""
        if self.is_lost(now):
            raise TurnLost(self.id)


class TurnSummary(Struct, frozen=True):
    """The fields of a turn that front ends read. `lease_until` is None for a turn that has ended."""

    id: TurnId
    conversation_id: ConversationId
    status: TurnStatus
    assistant: str | None
    metadata: Metadata
    started_at: Instant
    lease_until: Instant | None
    run_id: str | None

    def check_not_lost(self, now: datetime) -> None:
        """Raises `TurnLost` if the turn is to be continued."""
        if self.lease_until is not None and now >= self.lease_until:
            raise TurnLost(self.id)
