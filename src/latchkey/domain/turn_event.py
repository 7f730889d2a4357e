"""What happens in a turn, as those who follow it are told: numbered from 1, without gaps."""

from typing import Literal

import msgspec
from msgspec import Raw, Struct

from latchkey.domain.artifact import ArtifactReference
from latchkey.domain.conversation import ConversationId
from latchkey.domain.message import MessageId
from latchkey.domain.tool_call import ToolCallId
from latchkey.domain.turn import TurnId, Usage

EventName = Literal[
    "turn.started",
    "message.delta",
    "tool_call.started",
    "tool_call.completed",
    "artifact.created",
    "turn.completed",
    "turn.failed",
    "turn.cancelled",
    "turn.interrupted",
]


class Started(Struct, frozen=True):
    conversation_id: ConversationId
    agent: str


class Delta(Struct, frozen=True):
    """A piece of the answer; the pieces joined are the answer."""

    text: str


class CallStarted(Struct, frozen=True):
    id: ToolCallId
    name: str
    arguments: Raw


class CallCompleted(Struct, frozen=True):
    id: ToolCallId
    name: str
    result: Raw
    is_error: bool
    duration_ms: int


class Completed(Struct, frozen=True):
    response: str
    message_id: MessageId
    usage: Usage


class Failed(Struct, frozen=True):
    code: str
    detail: str


class Cancelled(Struct, frozen=True):
    pass


class Interrupted(Struct, frozen=True):
    pass


Ending = Completed | Failed | Cancelled | Interrupted
Happening = Started | Delta | CallStarted | CallCompleted | ArtifactReference | Ending

_NAMES: dict[type[Happening], EventName] = {
    Started: "turn.started",
    Delta: "message.delta",
    CallStarted: "tool_call.started",
    CallCompleted: "tool_call.completed",
    ArtifactReference: "artifact.created",
    Completed: "turn.completed",
    Failed: "turn.failed",
    Cancelled: "turn.cancelled",
    Interrupted: "turn.interrupted",
}
_LAST = {"turn.completed", "turn.failed", "turn.cancelled", "turn.interrupted"}

_encode = msgspec.json.Encoder().encode


class TurnEvent(Struct, frozen=True):
    """One event. `body` is the JSON of what happened, as it is stored."""

    turn_id: TurnId
    seq: int
    name: str
    body: bytes

    @classmethod
    def of(cls, turn_id: TurnId, seq: int, what: Happening) -> "TurnEvent":
        return cls(turn_id, seq, _NAMES[type(what)], _encode(what))

    @property
    def is_last(self) -> bool:
        return self.name in _LAST

    @property
    def data(self) -> bytes:
        """The JSON as it is published: what happened, with the turn and the number."""
        rest = b"}" if self.body == b"{}" else b"," + self.body[1:]
        return b'{"turn_id":"%s","seq":%d' % (str(self.turn_id).encode(), self.seq) + rest


def numbered(turn_id: TurnId, after: int, *happened: Happening) -> list[TurnEvent]:
    """What happened in a turn after the event of that number."""
    return [TurnEvent.of(turn_id, after + nth, what) for nth, what in enumerate(happened, 1)]
