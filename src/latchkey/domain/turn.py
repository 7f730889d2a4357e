"""A turn: one message of the person, what the agent did about it, and how that ended."""

from datetime import datetime
from typing import Literal, NewType
from uuid import UUID

from msgspec import Struct
from msgspec.structs import replace

from latchkey.domain.conversation import ConversationId
from latchkey.domain.instant import Instant

TurnId = NewType("TurnId", UUID)
TurnStatus = Literal["running", "completed", "failed", "cancelled", "interrupted"]


class Usage(Struct, frozen=True):
    """What a turn has asked of the model, in requests and tokens."""

    requests: int = 0
    input_tokens: int = 0
    output_tokens: int = 0

    def __add__(self, more: "Usage") -> "Usage":
        return Usage(
            self.requests + more.requests,
            self.input_tokens + more.input_tokens,
            self.output_tokens + more.output_tokens,
        )


class TurnError(Struct, frozen=True):
    """Why a turn failed. `code` is one of the published words."""

    code: str
    detail: str


class Turn(Struct, frozen=True, kw_only=True):
    """One turn. While it runs, whoever runs it renews its lease; a lease that has passed means nobody does."""

    id: TurnId
    conversation_id: ConversationId
    status: TurnStatus
    agent: str
    error: TurnError | None = None
    usage: Usage = Usage()
    started_at: Instant
    finished_at: Instant | None = None
    lease_until: Instant

    def is_running(self, now: datetime) -> bool:
        return self.status == "running" and now < self.lease_until

    def as_of(self, now: datetime) -> "Turn":
        """The turn as it truly is: one whose lease has passed was interrupted when it passed."""
        if self.status != "running" or self.is_running(now):
            return self
        return replace(self, status="interrupted", finished_at=self.lease_until)
