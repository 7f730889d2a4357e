"""The translation of a turn's events to AG-UI. `tests/interop` compares it with the reducers of the real clients."""

import json
from typing import Any
from weakref import ref

from hypothesis import given, settings
from hypothesis import strategies as st

from latchkey.domain.turn_event import MessageDeltaEvent, TurnEvent, TurnStartedEvent
from latchkey.interfaces.http.frontends.ag_ui.history import answer_messages
from latchkey.interfaces.http.frontends.ag_ui.run import Run
from latchkey.interfaces.http.frontends.ag_ui.translator import AgUiTranslator
from tests.support.event_logs import TURN, event_logs

LAST = {"RUN_FINISHED", "RUN_ERROR"}
FIELDS: dict[str, set[str]] = {
    "RUN_STARTED": {"threadId", "runId", "metadata"},
    "TEXT_MESSAGE_START": {"messageId", "role"},
    "TEXT_MESSAGE_CONTENT": {"messageId", "delta"},
    "TEXT_MESSAGE_END": {"messageId"},
    "TOOL_CALL_START": {"toolCallId", "toolCallName", "parentMessageId"},
    "TOOL_CALL_ARGS": {"toolCallId", "delta"},
    "TOOL_CALL_END": {"toolCallId"},
    "TOOL_CALL_RESULT": {"messageId", "toolCallId", "role", "content", "metadata"},
    "CUSTOM": {"name", "value"},
    "RUN_FINISHED": {"threadId", "runId", "usage", "outcome"},
    "RUN_ERROR": {"message", "code"},
}
OPTIONAL = {"usage", "outcome", "metadata"}


@settings(deadline=None)
@given(event_logs(TURN), st.booleans())
def test_stream_has_known_events_and_fields_only_and_one_last_event(log: list[TurnEvent], modern: bool) -> None:  # noqa: FBT001 - hypothesis
    events = [event for _, event in frames(log, Run("t1", "r1", knows_cancelled=modern))]

    for event in events:
        allowed = FIELDS[event["type"]]
        assert allowed - OPTIONAL <= event.keys() - {"type"} <= allowed
        assert None not in event.values()
        assert modern or "outcome" not in event
    assert [event["type"] in LAST for event in events] == [False] * (len(events) - 1) + [True]


@settings(deadline=None)
@given(event_logs(TURN))
def test_stream_opens_each_message_once_and_closes_it_before_anything_else(log: list[TurnEvent]) -> None:
    opened: set[str] = set()
    text: str | None = None
    for _, event in frames(log):
        match event["type"]:
            case "TEXT_MESSAGE_START":
                assert event["messageId"] not in opened
                assert text is None
                opened.add(event["messageId"])
                text = event["messageId"]
            case "TEXT_MESSAGE_CONTENT":
                assert (event["messageId"], bool(event["delta"])) == (text, True)
            case "TEXT_MESSAGE_END":
                assert event["messageId"] == text
                text = None
            case "TOOL_CALL_RESULT":
                pass
            case _:
                assert text is None


@settings(deadline=None)
@given(event_logs(TURN))
def test_each_call_has_one_result_before_the_end(log: list[TurnEvent]) -> None:
    """Clients expect the page to run a call that has no result."""
    events = [event for _, event in frames(log)]
    started = [event["toolCallId"] for event in events if event["type"] == "TOOL_CALL_START"]
    answered = [event["toolCallId"] for event in events if event["type"] == "TOOL_CALL_RESULT"]

    assert sorted(started) == sorted(answered)


@settings(deadline=None)
@given(event_logs(TURN), st.data())
def test_stream_resumed_after_an_event_has_exactly_the_rest(log: list[TurnEvent], data: st.DataObject) -> None:
    whole = frames(log)
    last = data.draw(st.integers(0, len(whole) - 1))
    seq, place = map(int, whole[last][0].split("."))

    assert len({id for id, _ in whole}) == len(whole)
    assert frames(log, Run("t1", "r1", after=(seq, place))) == whole[last + 1 :]


@settings(deadline=None)
@given(event_logs(TURN))
def test_history_has_all_texts_calls_and_results_in_order(log: list[TurnEvent]) -> None:
    events = [event for _, event in frames(log)]
    messages = answer_messages(log)
    texts = "".join(message.get("content", "") for message in messages if message["role"] == "assistant")
    calls = [call["id"] for message in messages for call in message.get("toolCalls", [])]

    assert texts == "".join(event["delta"] for event in events if event["type"] == "TEXT_MESSAGE_CONTENT")
    assert [str(id) for id in calls] == [event["toolCallId"] for event in events if event["type"] == "TOOL_CALL_START"]
    assert len({message["id"] for message in messages}) == len(messages)
    for place, message in enumerate(messages):
        if message["role"] == "tool":
            owner = next(m for m in reversed(messages[:place]) if m["role"] == "assistant")
            assert message["toolCallId"] in {call["id"] for call in owner["toolCalls"]}


def test_event_of_a_later_release_is_left_out() -> None:
    started = TurnEvent.of(TURN.id, 1, TurnStartedEvent(TURN.conversation_id, TURN.agent))
    unknown = TurnEvent(TURN.id, 2, "turn.paused", b"{}")
    text = TurnEvent.of(TURN.id, 3, MessageDeltaEvent("Hello"))

    assert frames([started, unknown, text]) == frames([started, text])


def frames(log: list[TurnEvent], run: Run = Run("t1", "r1")) -> list[tuple[str, dict[str, Any]]]:  # noqa: B008 - frozen
    """The ids and events of the stream."""
    translator = AgUiTranslator(run)
    stream = b"".join(map(translator.translate, log)).decode()
    pairs = (frame.split("\n") for frame in stream.split("\n\n")[:-1])
    return [(id.removeprefix("id: "), json.loads(data.removeprefix("data: "))) for id, data in pairs]


class Snapshot(list[dict[str, Any]]):
    """A list that a weak reference can refer to."""


def test_messages_of_the_thread_are_not_kept_while_the_turn_runs() -> None:
    messages = Snapshot([{"id": "m1", "role": "user", "content": "Hi"}])
    reference = ref(messages)
    translator = AgUiTranslator(Run("t1", "r1", snapshot=messages))
    del messages
    first = translator.translate(TurnEvent.of(TURN.id, 1, TurnStartedEvent(TURN.conversation_id, TURN.agent)))

    assert b"MESSAGES_SNAPSHOT" in first
    assert reference() is None
