"""The translation of a turn's events for OpenAI's SDK, which accumulates them here."""

import json
from datetime import UTC, datetime
from typing import Any

import httpx2
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec import Raw
from openai import OpenAI
from uuid_utils.compat import uuid7

from latchkey.domain.approval import DecidedBy
from latchkey.domain.errors import NotFound
from latchkey.domain.tool_call import ToolCallId
from latchkey.domain.turn_event import (
    ApprovalDecidedEvent,
    ApprovalRequestedEvent,
    MessageDeltaEvent,
    ToolCallCompletedEvent,
    ToolCallStartedEvent,
    TurnCancelledEvent,
    TurnEvent,
    TurnWaitingEvent,
    numbered,
    without_withdrawn,
)
from latchkey.interfaces.http.frontends.openai.history import response_of, translated
from latchkey.interfaces.http.frontends.openai.ids import (
    FIRST_PART,
    WHOLE_TURN,
    ResponsePart,
    decode_response_id,
    response_id,
)
from tests.support.event_logs import TURN, continued_logs, event_logs, log_of
from tests.support.openai_sdk import KEEPALIVE, frames_of, parts_of

STATUS = {
    "turn.completed": "completed",
    "turn.failed": "failed",
    "turn.cancelled": "cancelled",
    "turn.interrupted": "failed",
    "turn.waiting": "completed",
}
LOGS = st.one_of(event_logs(TURN), continued_logs(TURN))
LAST_EVENT = {"completed": "response.completed", "failed": "response.failed", "cancelled": "response.incomplete"}


def sdk_for(stream: bytes) -> OpenAI:
    """The SDK of a service that answers with this stream."""
    headers = {"content-type": "text/event-stream"}
    transport = httpx2.MockTransport(lambda _: httpx2.Response(200, headers=headers, content=stream))
    return OpenAI(api_key="key", base_url="http://service", http_client=httpx2.Client(transport=transport))


def events_of(frames: bytes) -> list[dict[str, Any]]:
    lines = [line for line in frames.decode().split("\n") if line.startswith("data: ")]
    return [json.loads(line.removeprefix("data: ")) for line in lines]


def numbers_of(frames: bytes) -> list[int]:
    return [event["sequence_number"] for event in events_of(frames)]


def answer_of(events: list[TurnEvent]) -> str:
    """The answer without the paragraph breaks between responses."""
    texts = [""]
    for event in without_withdrawn(events):
        if isinstance(data := event.decode(), MessageDeltaEvent):
            texts[-1] += data.text
        elif event.is_waiting:
            texts.append("")
    return "".join([texts[0], *(text.lstrip("\n") for text in texts[1:])])


def outputs_of(events: list[TurnEvent]) -> list[dict[str, Any]]:
    return [response_of(log_of(events), part) for part in parts_of(events)]


@settings(deadline=None, max_examples=100)
@given(LOGS, st.booleans())
def test_sdk_accumulates_stream_to_same_response_as_history(events: list[TurnEvent], is_replay: bool) -> None:  # noqa: FBT001
    for part in parts_of(events):
        history = response_of(log_of(events), part)
        stream = frames_of(events, between=KEEPALIVE, part=part, log=events if is_replay else [])

        with sdk_for(stream).responses.stream(model="latchkey", input="Hello") as received_events:
            received = list(received_events)

        done = {event.output_index: event.item for event in received if event.type == "response.output_item.done"}
        items = {item["id"]: item for index in sorted(done) if (item := _plain(done[index]))}
        last: Any = received[-1]
        assert history["status"] == last.response.status
        assert last.type == LAST_EVENT[history["status"]]
        assert [items[item["id"]] for item in history["output"]] == history["output"]
        assert [_plain(item) for item in last.response.output] == history["output"]


@given(LOGS)
def test_last_response_of_turn_has_its_status(events: list[TurnEvent]) -> None:
    *earlier, last = outputs_of(events)

    assert last["status"] == STATUS[events[-1].name]
    for response in earlier:
        assert response["status"] == "completed"
        assert response["output"][-1]["type"] == "mcp_approval_request"


@settings(deadline=None, max_examples=60)
@given(LOGS)
def test_texts_of_responses_are_answer_of_turn(events: list[TurnEvent]) -> None:
    texts, deltas = "", ""
    for part in parts_of(events):
        stream = frames_of(events, part=part, log=events)
        with sdk_for(stream).responses.stream(model="latchkey", input="Hello") as received_events:
            received = list(received_events)
        deltas += "".join(event.delta for event in received if event.type == "response.output_text.delta")
        last: Any = received[-1]
        texts += last.response.output_text

    assert texts == deltas == answer_of(events)


@settings(deadline=None)
@given(LOGS, st.data())
def test_stream_resumed_after_number_has_exactly_the_rest(events: list[TurnEvent], data: st.DataObject) -> None:
    part = data.draw(st.sampled_from(parts_of(events)))
    whole = frames_of(events, part=part)
    numbers = numbers_of(whole)
    after = data.draw(st.sampled_from(numbers))

    rest = frames_of(events, after, part=part)

    assert numbers == list(range(len(numbers)))
    assert whole.endswith(rest)
    assert numbers_of(rest) == numbers[after + 1 :]


@given(LOGS)
def test_replay_leaves_out_deltas_of_withdrawn_text_and_keeps_all_numbers(events: list[TurnEvent]) -> None:
    live = {event["sequence_number"]: event for event in events_of(frames_of(events))}
    replay = {event["sequence_number"]: event for event in events_of(frames_of(events, log=events))}

    left_out = [event for number, event in live.items() if number not in replay]
    assert {event["type"] for event in left_out} <= {"response.output_text.delta"}
    assert [live[number]["type"] for number in replay] == [event["type"] for event in replay.values()]
    assert [live[number].get("output_index") for number in replay] == [
        event.get("output_index") for event in replay.values()
    ]


@given(LOGS)
def test_item_that_is_cut_ends_with_the_text_that_remains(events: list[TurnEvent]) -> None:
    """So a page that shows deltas learns what to show in their place."""
    shown: dict[str, str] = {}
    for event in events_of(frames_of(events)):
        if event["type"] == "response.output_text.delta":
            shown[event["item_id"]] = shown.get(event["item_id"], "") + event["delta"]
        elif event["type"] == "response.output_text.done":
            shown[event["item_id"]] = event["text"]

    texts = {item["id"]: item["content"][0]["text"] for item in outputs_of(events)[0]["output"] if "content" in item}
    assert {id: text for id, text in shown.items() if text} == texts


@given(continued_logs(TURN))
def test_items_of_turn_are_those_of_its_responses_and_the_decisions_among_them(events: list[TurnEvent]) -> None:
    translator = translated(log_of(events), WHOLE_TURN)
    expected = [item for response in outputs_of(events) for item in response["output"]]
    decisions = [item for item in translator.items if item["type"] == "mcp_approval_response"]
    positions = {item["id"]: position for position, item in enumerate(translator.items)}

    items = [item for item in translator.items if item not in decisions]
    assert [item["id"] for item in items] == [item["id"] for item in expected]
    for item, shown in zip(items, expected, strict=True):
        assert item.get("status") == "in_progress" or item == shown
    assert len(positions) == len(translator.items)
    for call in [item for item in translator.items if item["type"] == "mcp_call" and item["approval_request_id"]]:
        (decision,) = [item for item in decisions if item["approval_request_id"] == call["approval_request_id"]]
        assert positions[call["approval_request_id"]] < positions[decision["id"]] < positions[call["id"]]


@given(continued_logs(TURN))
def test_response_to_one_of_several_questions_ends_with_the_others(events: list[TurnEvent]) -> None:
    for seq, following in [(event.seq, events[event.seq :]) for event in events if event.name == "approval.decided"]:
        response = response_of(log_of(events), ResponsePart(seq - 1, seq))
        is_next_waiting = [event.name for event in following[:2]] == ["tool_call.completed", "turn.waiting"]
        requests = [item for item in response["output"] if item["type"] == "mcp_approval_request"]
        if is_next_waiting:
            first, *others = response["output"]
            assert first["type"] == "mcp_call"
            assert requests == others != []


@given(event_logs(TURN, is_ended=False))
def test_stream_has_no_id_lines_and_each_event_is_named(events: list[TurnEvent]) -> None:
    for frame in frames_of(events).decode().split("\n\n")[:-1]:
        name, data = frame.split("\n")
        assert name == f"event: {json.loads(data.removeprefix('data: '))['type']}"


@pytest.mark.parametrize("by", ["expiry", "message", "cancel"])
def test_decision_in_place_of_the_user_says_why(by: DecidedBy) -> None:
    call, arguments = ToolCallId(uuid7()), Raw(b'{"id":7}')
    declined = Raw(b'{"code":"declined","detail":"No."}')
    events = numbered(
        TURN.id,
        0,
        ToolCallStartedEvent(call, "delete_task", arguments),
        ApprovalRequestedEvent(call, "delete_task", arguments, datetime(2030, 1, 2, tzinfo=UTC)),
        TurnWaitingEvent(),
        ApprovalDecidedEvent(call, "decline", None, by),
        ToolCallCompletedEvent(call, "delete_task", declined, is_error=True, duration_ms=0),
        TurnCancelledEvent(),
    )

    request, decision, failed = translated(log_of(events), WHOLE_TURN).items

    assert (request["type"], request["arguments"]) == ("mcp_approval_request", '{"id":7}')
    assert (decision["approve"], decision["approval_request_id"]) == (False, request["id"])
    assert decision["reason"]
    assert (failed["status"], failed["approval_request_id"]) == ("failed", request["id"])
    assert response_of(log_of(events))["output"] == [request]


def test_result_that_comes_while_turn_waits_for_another_decision_is_in_the_next_response() -> None:
    """A call outside a transaction can take longer than the client waits before it sends its second decision."""
    slow, other = ToolCallId(uuid7()), ToolCallId(uuid7())
    expires_at = datetime(2030, 1, 2, tzinfo=UTC)
    events = numbered(
        TURN.id,
        0,
        *(ToolCallStartedEvent(call, "pay", Raw(b"{}")) for call in (slow, other)),
        *(ApprovalRequestedEvent(call, "pay", Raw(b"{}"), expires_at) for call in (slow, other)),
        TurnWaitingEvent(),
        ApprovalDecidedEvent(slow, "approve", None, "user"),
        TurnWaitingEvent(),
        ToolCallCompletedEvent(slow, "pay", Raw(b'{"paid":1}'), is_error=False, duration_ms=9000),
        TurnWaitingEvent(),
        ApprovalDecidedEvent(other, "approve", None, "user"),
        ToolCallCompletedEvent(other, "pay", Raw(b'{"paid":2}'), is_error=False, duration_ms=7),
        TurnCancelledEvent(),
    )
    first, second, both = [
        response_of(log_of(events), part)["output"]
        for part in (ResponsePart(5, 6), ResponsePart(9, 10), ResponsePart(5, 10))
    ]

    assert [item["type"] for item in first] == ["mcp_approval_request"]
    assert [item["output"] for item in second] == ['{"paid":1}', '{"paid":2}']
    assert both == second
    whole = translated(log_of(events), WHOLE_TURN).items
    assert [item for item in whole if item["type"] == "mcp_call"] == second


@pytest.mark.parametrize("part", [FIRST_PART, ResponsePart(9, 10), ResponsePart(2**32 - 2, 2**32 - 1)])
def test_id_of_response_is_decoded_as_it_was_encoded(part: ResponsePart) -> None:
    assert decode_response_id(response_id(TURN.id, part)) == (TURN.id, part)


@pytest.mark.parametrize("text", ["", "resp_", "resp_7", f"conv_{'0' * 32}", f"resp_{'0' * 40}", f"resp_{'g' * 48}"])
def test_other_text_is_no_id_of_a_response(text: str) -> None:
    with pytest.raises(NotFound):
        decode_response_id(text)


def _plain(item: Any) -> dict[str, Any]:
    """The item as it was sent: the SDK adds `parsed`."""
    plain: dict[str, Any] = json.loads(item.model_dump_json(exclude_unset=True))
    for part in plain.get("content", []):
        part.pop("parsed", None)
    return plain


def test_large_results_are_omitted_so_that_open_streams_stay_small() -> None:
    calls = [ToolCallId(uuid7()) for _ in range(40)]
    results = [b'"%s"' % (b"x" * size) for size in (70_000, *[60_000] * 39)]
    events = numbered(
        TURN.id,
        0,
        *(ToolCallStartedEvent(call, "list_tasks", Raw(b"{}")) for call in calls),
        *(
            ToolCallCompletedEvent(call, "list_tasks", Raw(result), is_error=False, duration_ms=1)
            for call, result in zip(calls, results, strict=True)
        ),
        TurnCancelledEvent(),
    )

    outputs = [item["output"] for item in response_of(log_of(events))["output"]]

    assert json.loads(outputs[0])["omitted_bytes"] == 70_002
    assert outputs[1] == results[1].decode()
    assert json.loads(outputs[-1])["omitted_bytes"] == 60_002
    assert sum(map(len, outputs)) < 1_100_000
