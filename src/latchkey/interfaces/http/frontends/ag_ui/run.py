"""A run that a client has requested: its first and last event, and the encoding of all events."""

from collections.abc import Iterable, Iterator
from typing import Any

import msgspec
from msgspec import Struct

from latchkey.domain.errors import TurnInterrupted
from latchkey.domain.turn_event import (
    FinalEvent,
    TurnCancelledEvent,
    TurnCompletedEvent,
    TurnFailedEvent,
    TurnInterruptedEvent,
)
from latchkey.interfaces.http.frontends.turn_events import INTERRUPTED

AgUiEvent = dict[str, Any]

BEGINNING = (-1, 0)

_encode = msgspec.json.Encoder().encode


class Run(Struct, frozen=True):
    """The run that a client has requested, with the client's own ids.

    - `knows_cancelled`: the client knows the outcome of a cancelled run; clients before 1.0 raise an error for it.
    - `after`: the number of the last event that the client has received, and the index of the AG-UI event within it.
    - `snapshot`: messages of the thread, for a client that shows a thread instead of sending a message.
    - `begins_after`: the run continues a turn that has waited. The client has all events up to this number.
    """

    thread_id: str
    id: str
    knows_cancelled: bool = False
    after: tuple[int, int] = BEGINNING
    snapshot: list[dict[str, Any]] | None = None
    begins_after: int = 0

    def started(self, **optional: Any) -> Iterator[AgUiEvent]:
        """Yield the first events of the run."""
        yield {"type": "RUN_STARTED", "threadId": self.thread_id, "runId": self.id, **optional}
        if self.snapshot is not None:
            yield messages_snapshot(self.snapshot)

    def finished(self, **optional: Any) -> AgUiEvent:
        """Return the last event of a run that has not failed."""
        return {"type": "RUN_FINISHED", "threadId": self.thread_id, "runId": self.id, **optional}

    def interrupted(self, interrupts: list[AgUiEvent]) -> AgUiEvent:
        """Return the last event of a run that ends with questions; without any, the run has finished."""
        return self.finished(outcome={"type": "interrupt", "interrupts": interrupts}) if interrupts else self.finished()

    def ended(self, data: FinalEvent) -> AgUiEvent:
        """Return the last event of a run whose turn has ended."""
        match data:
            case TurnCompletedEvent(usage=usage):
                return self.finished(usage=[{"inputTokens": usage.input_tokens, "outputTokens": usage.output_tokens}])
            case TurnCancelledEvent():
                return self.finished(**({"outcome": {"type": "cancelled"}} if self.knows_cancelled else {}))
            case TurnFailedEvent(code, detail):
                return {"type": "RUN_ERROR", "message": detail, "code": code}
            case TurnInterruptedEvent():
                return {"type": "RUN_ERROR", "message": INTERRUPTED, "code": TurnInterrupted.code}

    def encode(self, seq: int, events: Iterable[AgUiEvent], first: int = 0) -> bytes:
        """Return the AG-UI events for the event with this number as server-sent events, without those before `after`.

        Their ids are unique: TanStack ignores an event whose id it has received before. `first` is the index of the
        first one.
        """
        return b"".join(
            b"id: %d.%d\ndata: %s\n\n" % (seq, index, _encode(event))
            for index, event in enumerate(events, first)
            if (seq, index) > self.after
        )


def messages_snapshot(messages: list[dict[str, Any]]) -> AgUiEvent:
    """Return the event that replaces all messages that the client has."""
    return {"type": "MESSAGES_SNAPSHOT", "messages": messages}
