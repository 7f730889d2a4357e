"""Approvals: calls of tools that the user is asked about before they are made."""

from datetime import datetime
from typing import Annotated, Literal

from msgspec import Meta, Raw, Struct

from latchkey.domain.conversation import ConversationId
from latchkey.domain.tool_call import ToolCall, ToolCallId
from latchkey.domain.turn import Turn, TurnId
from latchkey.domain.values import PLAIN, Instant

DecisionName = Literal["approve", "decline"]
DecidedBy = Literal["user", "expiry", "message", "cancel"]

MAX_REASON_CHARS = 1000


class Question(Struct, frozen=True):
    """A call that the user is or was asked about. The last four fields are None while the question is open."""

    call: ToolCall
    expires_at: Instant
    decision: DecisionName | None = None
    reason: str | None = None
    by: DecidedBy | None = None
    decided_at: Instant | None = None

    @property
    def is_open(self) -> bool:
        """Whether it has not been decided yet. It may have expired."""
        return self.decision is None

    def can_be_decided(self, now: datetime) -> bool:
        """Whether it is open and has not expired."""
        return self.is_open and now < self.expires_at


class Approval(Struct, frozen=True):
    """An open question: a tool call as the user is shown it. It is declined at `expires_at`."""

    id: ToolCallId
    turn_id: TurnId
    conversation_id: ConversationId
    name: str
    arguments: Raw
    requested_at: Instant
    expires_at: Instant

    @classmethod
    def of(cls, turn: Turn, question: Question) -> "Approval":
        """Combine a question with its turn."""
        call = question.call
        return cls(
            id=call.id,
            turn_id=turn.id,
            conversation_id=turn.conversation_id,
            name=call.name,
            arguments=call.arguments,
            requested_at=call.started_at,
            expires_at=question.expires_at,
        )


class Decision(Struct, frozen=True):
    """A decision on a question, as it is stored."""

    name: DecisionName
    by: DecidedBy
    reason: str | None = None


class NewDecision(Struct, frozen=True, forbid_unknown_fields=True):
    """The user's decision on a call. The model is given the `reason` of a decline."""

    decision: DecisionName
    reason: Annotated[str, Meta(max_length=MAX_REASON_CHARS, pattern=PLAIN)] | None = None


class DecidedApproval(Struct, frozen=True):
    """A call that was decided, with the arguments that were shown, and its result.

    The result is null while an approved call outside a transaction runs. `{code, detail}` if it was declined or failed.
    """

    id: ToolCallId
    turn_id: TurnId
    conversation_id: ConversationId
    name: str
    arguments: Raw
    decision: DecisionName
    reason: str | None
    by: DecidedBy
    decided_at: Instant
    result: Raw
    is_error: bool

    @classmethod
    def of(cls, turn: Turn, question: Question) -> "DecidedApproval":
        """Combine a question that was decided with its turn."""
        call, decided_at = question.call, question.decided_at
        if question.decision is None or question.by is None or decided_at is None:
            raise ValueError(call.id)
        return cls(
            id=call.id,
            turn_id=turn.id,
            conversation_id=turn.conversation_id,
            name=call.name,
            arguments=call.arguments,
            decision=question.decision,
            reason=question.reason,
            by=question.by,
            decided_at=decided_at,
            result=call.result,
            is_error=call.is_error,
        )
