"""Approvals: calls of tools that the user is asked about before they are made."""

from typing import Annotated, Literal

from msgspec import Meta, Raw, Struct

from latchkey.domain.conversation import ConversationId
from latchkey.domain.tool_call import ToolCallId
from latchkey.domain.turn import TurnId
from latchkey.domain.values import PLAIN, Instant

DecisionName = Literal["approve", "decline"]
DecidedBy = Literal["user", "expiry", "message", "cancel"]

MAX_REASON_CHARS = 1000


class Approval(Struct, frozen=True):
    """An open question: a tool call as the user is shown it. It is declined at `expires_at`."""

    id: ToolCallId
    turn_id: TurnId
    conversation_id: ConversationId
    name: str
    arguments: Raw
    requested_at: Instant
    expires_at: Instant


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
