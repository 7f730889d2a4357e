"""What the clients have sent and received. The invariants are checked against this history."""

import json
import time
from collections import defaultdict
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Literal

Json = dict[str, Any]

ATTEMPTS = 20
"""How often a turn is tried: so many that random kills seldom use them up."""


Decides = Literal["approve", "decline", "mixed", "both", "leave"]
"""How a user decides: `both` sends opposite decisions at once, `leave` none."""

UNFINISHED = {"running", "waiting"}


class Invariant(StrEnum):
    """The kinds of anomalies that no fault may cause."""

    LOST = "lost"
    DUPLICATED = "duplicated"
    STUCK = "stuck"
    FAILED = "failed"
    PARTIALLY_WRITTEN = "partially written"
    CHANGED = "changed"
    MODEL_REFUSED = "refused by the model"
    INTERRUPTED = "interrupted"
    UNAPPROVED = "made without approval"


@dataclass(frozen=True)
class Anomaly:
    """A violated invariant, with the evidence."""

    invariant: Invariant
    text: str

    def __str__(self) -> str:
        return f"{self.invariant}: {self.text}"


@dataclass(frozen=True)
class TurnEvent:
    """One server-sent event, as received."""

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
    def final_status(self) -> str | None:
        """The status that a last event sets; None for every other event."""
        status = self.name.removeprefix("turn.")
        return status if status in {"completed", "failed", "cancelled", "interrupted"} else None

    def _field(self, name: bytes) -> bytes:
        return next(line[len(name) + 2 :] for line in self.raw.split(b"\n") if line.startswith(name + b": "))


@dataclass
class SentMessage:
    """One message and what its client knows about it.

    `tag` is unique to the text of this message. `outcome` is the final status of its turn, as the client knows it:
    `unknown` if the connection broke before any response and there is no idempotency key for a retry, and `left` if the
    user does not decide and goes on with another message. `undecided` are the decisions that are not answered yet.
    """

    user: str
    tag: str
    body: Json
    key: str | None = None
    is_streamed: bool = False
    cancel_after_first_delta: bool = False
    turn_id: str | None = None
    conversation_id: str | None = None
    outcome: str | None = None
    response: bytes | None = None
    last_event: int = 0
    is_waiting: bool = False
    decides: Decides = "approve"
    undecided: dict[str, str] = field(default_factory=dict)
    disconnected_at: float | None = None
    log_lines: list[str] = field(default_factory=list)

    def log(self, text: str) -> None:
        """Add a line of evidence."""
        self.log_lines.append(f"{time.monotonic():.2f} {text}")

    def add_event(self, event: TurnEvent) -> None:
        """Update from an event. Only for a streamed message the last event is the outcome."""
        self.log(f"{event.seq} {event.name}")
        self.last_event = event.seq
        self.turn_id = event.data["turn_id"]
        self.conversation_id = event.data.get("conversation_id", self.conversation_id)
        self.is_waiting = event.name == "turn.waiting"
        if self.is_streamed:
            self.outcome = event.final_status

    @property
    def response_json(self) -> Json:
        body: Json = json.loads(self.response or b"{}")
        return body


@dataclass
class History:
    """All messages, events and finished turns that the clients of one user have seen.

    `recoveries` has the seconds from the last lost connection to the outcome, for each message that lost one.
    `approvals` were shown as open. `decided` are the answers to decisions, and `refused` the decisions that were not
    accepted because another one was made before. `attempts` is how often the replicas try a turn whose process died.
    """

    sent: list[SentMessage] = field(default_factory=list)
    events: dict[str, dict[int, TurnEvent]] = field(default_factory=lambda: defaultdict(dict))
    finished_turns: list[Json] = field(default_factory=list)
    recoveries: list[float] = field(default_factory=list)
    anomalies: list[Anomaly] = field(default_factory=list)
    approvals: list[Json] = field(default_factory=list)
    decided: list[Json] = field(default_factory=list)
    refused: list[tuple[str, str]] = field(default_factory=list)
    attempts: int = ATTEMPTS

    def add_event(self, event: TurnEvent) -> None:
        """Record an event. It is an anomaly if the same event was different before."""
        known = self.events[event.data["turn_id"]].setdefault(event.seq, event)
        if known != event:
            self.anomalies.append(Anomaly(Invariant.CHANGED, f"{known.raw!r} and later {event.raw!r}"))

    def add_turn(self, turn: Json) -> None:
        """Record a turn as it was shown. A finished turn must never change."""
        if turn["status"] not in UNFINISHED:
            self.finished_turns.append(turn)
