"""What translators read of a turn: a note replaces large arguments and results, in streams and in histories."""

import msgspec
from msgspec import Raw
from uuid_utils.compat import uuid7

from latchkey.domain.tool_call import ToolCallId
from latchkey.domain.turn import TurnId
from latchkey.domain.turn_event import MAX_SHOWN_BYTES, EventData, ToolCallCompletedEvent, TurnEvent, numbered
from latchkey.interfaces.http.frontends.turn_events import MAX_TURN_BYTES, EventReader


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
