"""Event logs of turns that hypothesis generates: every order of events that a turn can have."""

from datetime import UTC, datetime
from typing import Any, Literal

from hypothesis import strategies as st
from msgspec import Raw
from msgspec.json import encode
from uuid_utils.compat import uuid7

from latchkey.application.turns.log import TurnLog
from latchkey.domain.approval import DecisionName
from latchkey.domain.artifact import ArtifactId, ArtifactReference
from latchkey.domain.message import MessageId
from latchkey.domain.tool_call import ToolCallId
from latchkey.domain.turn import Turn, TurnSummary, Usage
from latchkey.domain.turn_event import (
    ApprovalDecidedEvent,
    ApprovalRequestedEvent,
    EventData,
    FinalEvent,
    MessageDeltaEvent,
    MessageWithdrawnEvent,
    ToolCallCompletedEvent,
    ToolCallStartedEvent,
    TurnCancelledEvent,
    TurnCompletedEvent,
    TurnEvent,
    TurnFailedEvent,
    TurnInterruptedEvent,
    TurnResumedEvent,
    TurnStartedEvent,
    TurnWaitingEvent,
    numbered,
)
from tests.builders import a_conversation, a_message, a_turn

_TEXTS = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=1, max_size=12)
_ARGUMENTS = st.dictionaries(_TEXTS, st.one_of(_TEXTS, st.integers(-9, 9), st.none()), max_size=3)
_STEPS = st.one_of(
    st.tuples(st.just("text"), st.one_of(_TEXTS, st.just("\n\n"))),
    st.tuples(st.just("call"), _ARGUMENTS),
    st.tuples(st.just("result"), st.tuples(_ARGUMENTS, st.booleans())),
    st.tuples(st.just("artifact"), _TEXTS),
)
TURN = a_turn(a_conversation())
SUMMARY = TurnSummary(TURN.id, TURN.conversation_id, "completed", None, {}, TURN.started_at, None, None)


@st.composite
def event_logs(draw: st.DrawFn, turn: Turn, *, is_ended: bool = True) -> list[TurnEvent]:
    """The events of this turn: texts and calls in any order, calls in parallel, and any end.

    A completed turn has no open calls. Without `is_ended` there is no last event.
    """
    events: list[EventData] = [TurnStartedEvent(turn.conversation_id, turn.agent)]
    open_calls: list[ToolCallId] = []
    for kind, value in draw(st.lists(_STEPS, max_size=12)):
        events += _events_of(kind, value, open_calls)
    if is_ended:
        end = draw(st.sampled_from(["completed", "failed", "cancelled", "interrupted"]))
        while end == "completed" and open_calls:
            events += _events_of("result", ({}, False), open_calls)
        events.append(_final_event(end, _answer_of(events)))
    return numbered(turn.id, 0, *events)


@st.composite
def continued_logs(draw: st.DrawFn, turn: Turn) -> list[TurnEvent]:
    """The events of a turn that other processes have continued, and that waits or has waited for approvals.

    Text after the newest call is withdrawn when a step breaks off. The last event is `turn.waiting`, or any end.
    """
    log = _ContinuedLog(turn)
    for _ in range(draw(st.integers(1, 4))):
        for kind, value in draw(st.lists(_STEPS, max_size=4)):
            log.events += _events_of(kind, value, log.open_calls)
        for arguments in draw(st.lists(_ARGUMENTS, max_size=2)):
            log.request_approval(arguments)
        if not log.asked:
            log.break_off(draw(st.sampled_from([0, 0, 0, 1, 5])), draw(st.sampled_from(["recovery", "handover"])))
        elif draw(st.booleans()):
            log.close_calls()
            return numbered(turn.id, 0, *log.events, TurnWaitingEvent())
        else:
            log.decide_all([draw(st.booleans()) for _ in log.asked], is_early=draw(st.booleans()))
    end = draw(st.sampled_from(["completed", "failed", "cancelled", "interrupted"]))
    if end == "completed":
        log.close_calls()
    return numbered(turn.id, 0, *log.events, _final_event(end, _answer_of(log.events)))


class _ContinuedLog:
    """The events of a turn so far, with its calls that have no result."""

    def __init__(self, turn: Turn) -> None:
        self.events: list[EventData] = [TurnStartedEvent(turn.conversation_id, turn.agent)]
        self.open_calls: list[ToolCallId] = []
        self.asked: list[ToolCallId] = []
        self._attempt = 1

    def request_approval(self, arguments: Any) -> None:
        id, json = ToolCallId(uuid7()), Raw(encode(arguments))
        self.asked.append(id)
        expires_at = datetime(2030, 1, 2, tzinfo=UTC)
        self.events += [
            ToolCallStartedEvent(id, "delete_task", json),
            ApprovalRequestedEvent(id, "delete_task", json, expires_at),
        ]

    def decide_all(self, approved: list[bool], *, is_early: bool) -> None:
        """Decide each open question; the first one before the turn waits if `is_early`. Then continue the turn."""
        self.close_calls()
        if not is_early:
            self.events.append(TurnWaitingEvent())
        while self.asked:
            id, is_approved = self.asked.pop(0), approved.pop(0)
            decision: DecisionName = "approve" if is_approved else "decline"
            result = Raw(b"{}") if is_approved else Raw(b'{"code":"declined","detail":"No."}')
            self.events += [
                ApprovalDecidedEvent(id, decision, None, "user"),
                ToolCallCompletedEvent(id, "delete_task", result, not is_approved, 7),
            ]
            if self.asked:
                self.events.append(TurnWaitingEvent())
        self._resume("approval")

    def break_off(self, kept: int, reason: Literal["recovery", "handover"]) -> None:
        """Continue the turn after the end of its process. `kept` characters of the withdrawn step stay."""
        self.close_calls()
        calls = [place for place, event in enumerate(self.events) if isinstance(event, ToolCallStartedEvent)]
        length, stored = len(_answer_of(self.events)), len(_answer_of(self.events[: max(calls, default=0)]))
        if stored + kept < length:
            self.events.append(MessageWithdrawnEvent(stored + kept))
        self._resume(reason)

    def close_calls(self) -> None:
        """Add a result for each call that the user was not asked about."""
        while self.open_calls:
            self.events += _events_of("result", ({"code": "no-result"}, True), self.open_calls)

    def _resume(self, reason: Literal["approval", "recovery", "handover"]) -> None:
        self._attempt += 1
        self.events.append(TurnResumedEvent(self._attempt, reason))


def log_of(events: list[TurnEvent]) -> TurnLog:
    """The log of `TURN` with these events."""
    return TurnLog(SUMMARY, a_message(TURN, 1), "1", events)


def _events_of(kind: str, value: Any, open_calls: list[ToolCallId]) -> list[EventData]:
    if kind == "text":
        return [MessageDeltaEvent(value)]
    if kind == "artifact":
        return [ArtifactReference(ArtifactId(uuid7()), "generated_file", value, 1)]
    if kind == "call":
        open_calls.append(ToolCallId(uuid7()))
        return [ToolCallStartedEvent(open_calls[-1], "add_task", Raw(encode(value)))]
    if not open_calls:
        return []
    result, is_error = value
    return [ToolCallCompletedEvent(open_calls.pop(0), "add_task", Raw(encode(result)), is_error, 7)]


def _final_event(end: str, answer: str) -> FinalEvent:
    if end == "completed":
        return TurnCompletedEvent(answer, MessageId(uuid7()), Usage(1, 20, 3))
    if end == "failed":
        return TurnFailedEvent("model-unavailable", "The model does not answer.")
    return TurnCancelledEvent() if end == "cancelled" else TurnInterruptedEvent()


def _answer_of(events: list[EventData]) -> str:
    answer = ""
    for event in events:
        if isinstance(event, MessageDeltaEvent):
            answer += event.text
        elif isinstance(event, MessageWithdrawnEvent):
            answer = answer[: event.length]
    return answer
