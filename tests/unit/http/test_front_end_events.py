"""What translators read of a turn: a note replaces large arguments and results, and withdrawn text is left out."""

from collections.abc import Callable, Sequence
from time import process_time

import msgspec
import pytest
from hypothesis import given
from msgspec import Raw
from uuid_utils.compat import uuid7

from latchkey.domain.tool_call import ToolCallId
from latchkey.domain.turn import TurnId
from latchkey.domain.turn_event import (
    MAX_SHOWN_BYTES,
    EventData,
    MessageDeltaEvent,
    MessageWithdrawnEvent,
    ToolCallCompletedEvent,
    ToolCallStartedEvent,
    TurnCancelledEvent,
    TurnEvent,
    TurnStartedEvent,
    numbered,
    without_withdrawn,
)
from latchkey.interfaces.http.frontends.ag_ui.history import answer_messages
from latchkey.interfaces.http.frontends.ag_ui.tanstack import ui_messages
from latchkey.interfaces.http.frontends.ai_sdk.history import assistant_message
from latchkey.interfaces.http.frontends.openai.history import response_of
from latchkey.interfaces.http.frontends.turn_events import MAX_TURN_BYTES, EventReader
from tests.support.event_logs import TURN, continued_logs, log_of


def results_of(*sizes: int) -> list[TurnEvent]:
    """Events of results of these sizes."""
    data: list[EventData] = [
        ToolCallCompletedEvent(
            ToolCallId(uuid7()), "look_up", Raw(b'"' + b"x" * (size - 2) + b'"'), is_error=False, duration_ms=1
        )
        for size in sizes
    ]
    return numbered(TurnId(uuid7()), 0, *data)


def shown(events: list[TurnEvent]) -> list[int]:
    """The size of each result; of one that is left out, the negative size from its note."""
    reader, sizes = EventReader(), list[int]()
    for event in events:
        data = reader.read(event)
        assert isinstance(data, ToolCallCompletedEvent)
        value = msgspec.json.decode(data.result)
        sizes.append(-value["omitted_bytes"] if isinstance(value, dict) else len(bytes(data.result)))
    return sizes


def test_result_larger_than_the_limit_is_left_out() -> None:
    assert shown(results_of(MAX_SHOWN_BYTES, MAX_SHOWN_BYTES + 1, 10)) == [MAX_SHOWN_BYTES, -MAX_SHOWN_BYTES - 1, 10]


def test_results_of_a_turn_are_shown_up_to_a_sum() -> None:
    count = MAX_TURN_BYTES // MAX_SHOWN_BYTES
    events = results_of(*[MAX_SHOWN_BYTES - 1] * count, count, 1000)

    assert shown(events) == [*[MAX_SHOWN_BYTES - 1] * count, count, -1000]


def test_reading_a_result_that_was_left_out_before_changes_nothing() -> None:
    events = results_of(*[MAX_SHOWN_BYTES + 1] * 3, *[MAX_SHOWN_BYTES] * (MAX_TURN_BYTES // MAX_SHOWN_BYTES))
    reader = EventReader()
    once = [TurnEvent.of(event.turn_id, event.seq, data) for event in events if (data := reader.read(event))]

    assert shown(once) == shown(events)


def turn_of(*data: EventData) -> list[TurnEvent]:
    return numbered(TURN.id, 0, TurnStartedEvent(TURN.conversation_id, TURN.agent), *data, TurnCancelledEvent())


HISTORIES = [answer_messages, assistant_message, lambda events: response_of(log_of([*events])), ui_messages]


@pytest.mark.parametrize("history", HISTORIES, ids=["ag_ui", "ai_sdk", "openai", "tanstack"])
def test_history_of_a_long_answer_in_many_pieces_takes_time_in_proportion(
    history: Callable[[list[TurnEvent]], Sequence[object]],
) -> None:
    """No piece is added to a copy of the whole text before it."""
    piece, count = "\U0001f511" * 64, 60_000
    pieces = turn_of(*[MessageDeltaEvent(piece)] * count)
    started = process_time()
    result = history(pieces)
    seconds = process_time() - started

    assert (piece * count).encode() in msgspec.json.encode(result)
    assert seconds < 10


def test_result_within_a_text_stays_apart_from_the_text_for_tanstack() -> None:
    call = ToolCallId(uuid7())
    started = ToolCallStartedEvent(call, "look_up", Raw(b"{}"))
    completed = ToolCallCompletedEvent(call, "look_up", Raw(b"7"), is_error=False, duration_ms=1)
    (message,) = ui_messages(turn_of(started, MessageDeltaEvent("One, "), completed, MessageDeltaEvent("two.")))
    contents = {part["type"]: part.get("content") for part in message["parts"]}

    assert contents == {"tool-call": None, "text": "One, two.", "tool-result": "7"}


def texts_of(events: list[TurnEvent]) -> list[tuple[int, str]]:
    """The number and the text of each piece of the answer."""
    pairs = [(event.seq, event.decode()) for event in events]
    return [(seq, data.text) for seq, data in pairs if isinstance(data, MessageDeltaEvent)]


def test_withdrawn_text_is_left_out_and_a_piece_is_cut() -> None:
    pieces = [MessageDeltaEvent("One "), MessageDeltaEvent("two "), MessageDeltaEvent("three")]
    events = numbered(TURN.id, 0, *pieces, MessageWithdrawnEvent(6), MessageDeltaEvent("!"))

    assert texts_of(without_withdrawn(events)) == [(1, "One "), (2, "tw"), (5, "!")]


def test_text_withdrawn_twice_is_cut_to_the_shorter_length() -> None:
    once = numbered(TURN.id, 0, MessageDeltaEvent("One"), MessageWithdrawnEvent(2), MessageDeltaEvent("ly"))
    twice = [*once, *numbered(TURN.id, 3, MessageWithdrawnEvent(0))]

    assert texts_of(without_withdrawn(once)) == [(1, "On"), (3, "ly")]
    assert texts_of(without_withdrawn(twice)) == []


@given(continued_logs(TURN))
def test_text_that_is_not_withdrawn_is_the_answer_and_all_other_events_stay(log: list[TurnEvent]) -> None:
    kept = without_withdrawn(log)
    answer = ""
    for event in log:
        match event.decode():
            case MessageDeltaEvent(text):
                answer += text
            case MessageWithdrawnEvent(length):
                answer = answer[:length]

    assert "".join(text for _, text in texts_of(kept)) == answer
    assert [event for event in kept if event.name != "message.delta"] == [
        event for event in log if event.name != "message.delta"
    ]
    assert [event.seq for event in kept] == sorted({event.seq for event in kept})
