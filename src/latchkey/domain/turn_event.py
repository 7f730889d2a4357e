"""The events of a turn: its log, which subscribers receive. They are numbered from 1, without gaps."""

from collections.abc import Callable
from typing import Literal

import msgspec
from msgspec import Raw, Struct

from latchkey.domain.approval import DecidedBy, DecisionName
from latchkey.domain.artifact import ArtifactReference
from latchkey.domain.conversation import ConversationId
from latchkey.domain.message import MessageId
from latchkey.domain.tool_call import ToolCallId
from latchkey.domain.turn import AgentName, FailureCode, TurnId, Usage
from latchkey.domain.undo import UndoneEffect
from latchkey.domain.values import Instant

EventName = Literal[
    "turn.started",
    "message.delta",
    "tool_call.started",
    "tool_call.completed",
    "artifact.created",
    "approval.requested",
    "approval.decided",
    "turn.waiting",
    "message.withdrawn",
    "turn.resumed",
    "turn.completed",
    "turn.failed",
    "turn.cancelled",
    "turn.interrupted",
    "turn.undone",
]


ResumeReason = Literal["approval", "handover", "recovery"]


class TurnStartedEvent(Struct, frozen=True):
    """The first event."""

    conversation_id: ConversationId
    agent: AgentName


class MessageDeltaEvent(Struct, frozen=True):
    """A piece of the answer. All pieces joined are the answer."""

    text: str


class ToolCallStartedEvent(Struct, frozen=True):
    """The model calls a tool."""

    id: ToolCallId
    name: str
    arguments: Raw


class ToolCallCompletedEvent(Struct, frozen=True):
    """The result of a tool call, or its error."""

    id: ToolCallId
    name: str
    result: Raw
    is_error: bool
    duration_ms: int


class ApprovalRequestedEvent(Struct, frozen=True):
    """The user is asked whether the call with this id may be made. The question is declined when it expires."""

    id: ToolCallId
    name: str
    arguments: Raw
    expires_at: Instant


class ApprovalDecidedEvent(Struct, frozen=True):
    """The call with this id was approved or declined.

    `by` is the user; or the expiry of the question, a further message in the conversation, or the cancellation of the
    turn, which decline it.
    """

    id: ToolCallId
    decision: DecisionName
    reason: str | None
    by: DecidedBy


class TurnWaitingEvent(Struct, frozen=True):
    """The turn waits for the user's decisions. Its stream ends; further events follow when all are made."""


class MessageWithdrawnEvent(Struct, frozen=True):
    """The answer so far is cut to `length` characters: the step that wrote the rest has broken off.

    The pieces that follow continue there.
    """

    length: int


class TurnResumedEvent(Struct, frozen=True):
    """A process continues the turn: `attempt` counts from 1."""

    attempt: int
    reason: ResumeReason


class TurnCompletedEvent(Struct, frozen=True):
    """The last event of a turn with an answer."""

    response: str
    message_id: MessageId
    usage: Usage


class TurnFailedEvent(Struct, frozen=True):
    """The last event of a turn that failed."""

    code: FailureCode
    detail: str


class TurnCancelledEvent(Struct, frozen=True):
    """The last event of a turn that was cancelled."""


class TurnInterruptedEvent(Struct, frozen=True):
    """The last event of a turn whose process stopped."""


class TurnUndoneEvent(Struct, frozen=True):
    """The user has undone what the tool calls of the turn did. It follows the last event of a turn that has ended."""

    effects: list[UndoneEffect]


FinalEvent = TurnCompletedEvent | TurnFailedEvent | TurnCancelledEvent | TurnInterruptedEvent
EventData = (
    TurnStartedEvent
    | MessageDeltaEvent
    | ToolCallStartedEvent
    | ToolCallCompletedEvent
    | ArtifactReference
    | ApprovalRequestedEvent
    | ApprovalDecidedEvent
    | TurnWaitingEvent
    | MessageWithdrawnEvent
    | TurnResumedEvent
    | FinalEvent
    | TurnUndoneEvent
)

EVENT_NAMES: dict[type[EventData], EventName] = {
    TurnStartedEvent: "turn.started",
    MessageDeltaEvent: "message.delta",
    ToolCallStartedEvent: "tool_call.started",
    ToolCallCompletedEvent: "tool_call.completed",
    ArtifactReference: "artifact.created",
    ApprovalRequestedEvent: "approval.requested",
    ApprovalDecidedEvent: "approval.decided",
    TurnWaitingEvent: "turn.waiting",
    MessageWithdrawnEvent: "message.withdrawn",
    TurnResumedEvent: "turn.resumed",
    TurnCompletedEvent: "turn.completed",
    TurnFailedEvent: "turn.failed",
    TurnCancelledEvent: "turn.cancelled",
    TurnInterruptedEvent: "turn.interrupted",
    TurnUndoneEvent: "turn.undone",
}
_FINAL = {"turn.completed", "turn.failed", "turn.cancelled", "turn.interrupted"}

MAX_SHOWN_BYTES = 64 * 1024
"""Larger arguments and results of tool calls are left out of histories, and of the streams of front ends."""

OMISSION = b'{"omitted_bytes":'
OMISSION_END = b',"detail":"Too large for this response: GET turns/{turn_id}/events of the REST API has the whole."}'


def omission_of(size: int) -> bytes:
    """Return the JSON in place of arguments or a result of this many bytes."""
    return b"%s%d%s" % (OMISSION, size, OMISSION_END)


_encode = msgspec.json.Encoder().encode
_DECODE: dict[str, Callable[[bytes], EventData]] = {
    name: msgspec.json.Decoder(data).decode for data, name in EVENT_NAMES.items()
}


class TurnEvent(Struct, frozen=True):
    """One event. `body` is its JSON as stored, without the turn and the number."""

    turn_id: TurnId
    seq: int
    name: str
    body: bytes

    @classmethod
    def of(cls, turn_id: TurnId, seq: int, data: EventData) -> "TurnEvent":
        """Encode the data as the event with this number."""
        return cls(turn_id, seq, EVENT_NAMES[type(data)], _encode(data))

    @property
    def is_last(self) -> bool:
        """Whether the turn ends with this event."""
        return self.name in _FINAL

    @property
    def is_waiting(self) -> bool:
        """Whether the turn waits for the user after this event."""
        return self.name == "turn.waiting"

    @property
    def is_withdrawal(self) -> bool:
        """Whether the event withdraws text of the answer."""
        return self.name == "message.withdrawn"

    @property
    def is_of_ended_turn(self) -> bool:
        """Whether the turn has ended by this event or before it. Only `turn.undone` may follow such an event."""
        return self.is_last or self.name == "turn.undone"

    @property
    def decided_call(self) -> ToolCallId | None:
        """The call that this event approves or declines; None for any other event."""
        data = self.decode() if self.name == "approval.decided" else None
        return data.id if isinstance(data, ApprovalDecidedEvent) else None

    def decode(self) -> EventData | None:
        """Decode the body. Returns None for an event of a later release."""
        decode = _DECODE.get(self.name)
        return None if decode is None else decode(self.body)

    @property
    def data(self) -> bytes:
        """The JSON as published: the body with `turn_id` and `seq`."""
        rest = b"}" if self.body == b"{}" else b"," + self.body[1:]
        return b'{"turn_id":"%s","seq":%d' % (str(self.turn_id).encode(), self.seq) + rest


def numbered(turn_id: TurnId, after: int, *data: EventData) -> list[TurnEvent]:
    """Encode the data as consecutive events, the first with the number `after + 1`."""
    return [TurnEvent.of(turn_id, seq, item) for seq, item in enumerate(data, after + 1)]


def without_withdrawn(events: list[TurnEvent]) -> list[TurnEvent]:
    """Return the events of a turn, from its first one on, without the text that a later one of them withdraws."""
    if not any(event.is_withdrawal for event in events):
        return events
    kept: dict[int, TurnEvent] = {}
    pieces: list[tuple[int, str]] = []
    length = 0
    for event in events:
        kept[event.seq] = event
        data = event.decode()
        if isinstance(data, MessageDeltaEvent):
            pieces.append((event.seq, data.text))
            length += len(data.text)
        elif isinstance(data, MessageWithdrawnEvent):
            while pieces and length > data.length:
                seq, text = pieces.pop()
                length -= len(text)
                if length >= data.length:
                    del kept[seq]
                else:
                    pieces.append((seq, text[: data.length - length]))
                    length = data.length
                    kept[seq] = TurnEvent.of(event.turn_id, seq, MessageDeltaEvent(pieces[-1][1]))
    return list(kept.values())
