"""What clients remember: what they sent, and everything that they were told. It is what the oracle goes by."""

import json
import time
from collections import defaultdict
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

Json = dict[str, Any]


class Law(StrEnum):
    """What must not happen, whatever else does."""

    LOST = "lost"
    DOUBLED = "doubled"
    STUCK = "stuck"
    FAILED = "failed"
    HALF_WRITTEN = "half written"
    CHANGED = "changed"
    WIRE = "refused by a model"


@dataclass(frozen=True)
class Anomaly:
    """A law was broken; the text is the evidence."""

    law: Law
    text: str

    def __str__(self) -> str:
        return f"{self.law}: {self.text}"


@dataclass(frozen=True)
class TurnEvent:
    """One event as it came over the wire."""

    raw: bytes

    @property
    def seq(self) -> int:
        return int(self._field(b"id"))

    @property
    def name(self) -> str:
        return self._field(b"event").decode()

    @property
    def data(self) -> Json:
        data: Json = json.loads(self._field(b"data"))
        return data

    @property
    def ending(self) -> str | None:
        """The status in which it leaves the turn, if it is a last one."""
        status = self.name.removeprefix("turn.")
        return status if status in {"completed", "failed", "cancelled", "interrupted"} else None

    def _field(self, name: bytes) -> bytes:
        return next(line[len(name) + 2 :] for line in self.raw.split(b"\n") if line.startswith(name + b": "))


@dataclass
class Sent:
    """One message. `tag` is in its text and nowhere else; `outcome` is how its turn ended, as its sender knows.

    It is `unknown` where a connection broke before anything was told, and there is no key to ask again with.
    """

    user: str
    tag: str
    body: Json
    key: str | None = None
    is_streamed: bool = False
    is_to_be_cancelled: bool = False
    turn_id: str | None = None
    conversation_id: str | None = None
    outcome: str | None = None
    answer: bytes | None = None
    last_event: int = 0
    lost_at: float | None = None
    story: list[str] = field(default_factory=list)

    def note(self, what: str) -> None:
        """One more line of evidence."""
        self.story.append(f"{time.monotonic():.2f} {what}")

    def hear(self, event: TurnEvent) -> None:
        """Who waits for an answer waits for more than the events."""
        self.note(f"{event.seq} {event.name}")
        self.last_event = event.seq
        self.turn_id = event.data["turn_id"]
        self.conversation_id = event.data.get("conversation_id", self.conversation_id)
        if self.is_streamed:
            self.outcome = event.ending

    @property
    def told(self) -> Json:
        answer: Json = json.loads(self.answer or b"{}")
        return answer


@dataclass
class Record:
    """All that clients remember. `recoveries` are seconds from the last lost connection to the outcome."""

    sent: list[Sent] = field(default_factory=list)
    events: dict[str, dict[int, TurnEvent]] = field(default_factory=lambda: defaultdict(dict))
    ended: list[Json] = field(default_factory=list)
    recoveries: list[float] = field(default_factory=list)
    anomalies: list[Anomaly] = field(default_factory=list)

    def hear(self, event: TurnEvent) -> None:
        """An event is what it was when it was heard before."""
        known = self.events[event.data["turn_id"]].setdefault(event.seq, event)
        if known != event:
            self.anomalies.append(Anomaly(Law.CHANGED, f"{known.raw!r} and later {event.raw!r}"))

    def show(self, turn: Json) -> None:
        """A turn that has ended stays as it was shown once."""
        if turn["status"] != "running":
            self.ended.append(turn)
