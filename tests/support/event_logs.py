"""Event logs of turns that hypothesis generates: every order of events that a turn can have."""

from typing import Any

from hypothesis import strategies as st
from msgspec import Raw
from msgspec.json import encode
from uuid_utils.compat import uuid7

from latchkey.application.turns.log import TurnLog
from latchkey.domain.artifact import ArtifactId, ArtifactReference
from latchkey.domain.message import MessageId
from latchkey.domain.tool_call import ToolCallId
from latchkey.domain.turn import Turn, TurnSummary, Usage
from latchkey.domain.turn_event import (
    EventData,
    FinalEvent,
    MessageDeltaEvent,
    ToolCallCompletedEvent,
    ToolCallStartedEvent,
    TurnCancelledEvent,
    TurnCompletedEvent,
    TurnEvent,
    TurnFailedEvent,
    TurnInterruptedEvent,
    TurnStartedEvent,
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
    return "".join(event.text for event in events if isinstance(event, MessageDeltaEvent))
