"""A run that a client has requested: its first and last event, and the encoding of all events."""

from collections.abc import Iterable, Iterator
from typing import Any

import msgspec
from msgspec import Struct

AgUiEvent = dict[str, Any]

BEGINNING = (-1, 0)

_encode = msgspec.json.Encoder().encode


class Run(Struct, frozen=True):
    """The run that a client has requested, with the client's own ids.

    - `knows_cancelled`: the client knows the outcome of a cancelled run; clients before 1.0 raise an error for it.
    - `after`: the number of the last event that the client has received, and the index of the AG-UI event within it.
    - `snapshot`: messages of the thread, for a client that shows a thread instead of sending a message.
    """

    thread_id: str
    id: str
    knows_cancelled: bool = False
    after: tuple[int, int] = BEGINNING
    snapshot: list[dict[str, Any]] | None = None

    def started(self, **optional: Any) -> Iterator[AgUiEvent]:
        """Yield the first events of the run."""
        yield {"type": "RUN_STARTED", "threadId": self.thread_id, "runId": self.id, **optional}
        if self.snapshot is not None:
            yield {"type": "MESSAGES_SNAPSHOT", "messages": self.snapshot}

    def finished(self, **optional: Any) -> AgUiEvent:
        """Return the last event of a run that has not failed."""
        return {"type": "RUN_FINISHED", "threadId": self.thread_id, "runId": self.id, **optional}

    def encode(self, seq: int, events: Iterable[AgUiEvent]) -> bytes:
        """Return the AG-UI events for the event with this number as server-sent events, without those before `after`.

        Their ids are unique: TanStack ignores an event whose id it has received before.
        """
        return b"".join(
            b"id: %d.%d\ndata: %s\n\n" % (seq, index, _encode(event))
            for index, event in enumerate(events)
            if (seq, index) > self.after
        )
