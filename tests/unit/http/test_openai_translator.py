"""The translation of a turn's events for OpenAI's SDK, which accumulates them here."""

import json
from typing import Any

import httpx2
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec import Raw
from openai import OpenAI
from uuid_utils.compat import uuid7

from latchkey.domain.tool_call import ToolCallId
from latchkey.domain.turn_event import ToolCallCompletedEvent, ToolCallStartedEvent, TurnEvent, numbered
from latchkey.interfaces.http.frontends.openai.history import response_of
from tests.support.event_logs import TURN, event_logs, log_of
from tests.support.openai_sdk import KEEPALIVE, frames_of

STATUS = {
    "turn.completed": "completed",
    "turn.failed": "failed",
    "turn.cancelled": "cancelled",
    "turn.interrupted": "failed",
}
LAST_EVENT = {"completed": "response.completed", "failed": "response.failed", "cancelled": "response.incomplete"}


def sdk_for(stream: bytes) -> OpenAI:
    """The SDK of a service that answers with this stream."""
    headers = {"content-type": "text/event-stream"}
    transport = httpx2.MockTransport(lambda _: httpx2.Response(200, headers=headers, content=stream))
    return OpenAI(api_key="key", base_url="http://service", http_client=httpx2.Client(transport=transport))


def numbers_of(frames: bytes) -> list[int]:
    lines = [line for line in frames.decode().split("\n") if line.startswith("data: ")]
    return [json.loads(line.removeprefix("data: "))["sequence_number"] for line in lines]


@settings(deadline=None, max_examples=60)
@given(event_logs(TURN))
def test_sdk_accumulates_stream_to_same_response_as_history(events: list[TurnEvent]) -> None:
    history = response_of(log_of(events))

    with sdk_for(frames_of(events, between=KEEPALIVE)).responses.stream(model="latchkey", input="Hello") as stream:
        received = list(stream)

    items = {event.output_index: event.item for event in received if event.type == "response.output_item.done"}
    last: Any = received[-1]
    assert history["status"] == STATUS[events[-1].name] == last.response.status
    assert last.type == LAST_EVENT[history["status"]]
    assert [_plain(items[index]) for index in sorted(items)] == history["output"]
    assert [_plain(item) for item in last.response.output] == history["output"]


@settings(deadline=None, max_examples=40)
@given(event_logs(TURN))
def test_texts_of_response_are_answer_of_turn(events: list[TurnEvent]) -> None:
    with sdk_for(frames_of(events)).responses.stream(model="latchkey", input="Hello") as stream:
        received = list(stream)

    deltas = "".join(event.delta for event in received if event.type == "response.output_text.delta")
    last: Any = received[-1]
    assert (
        last.response.output_text
        == deltas
        == "".join(json.loads(event.body)["text"] for event in events if event.name == "message.delta")
    )


@settings(deadline=None)
@given(event_logs(TURN), st.data())
def test_stream_resumed_after_number_has_exactly_the_rest(events: list[TurnEvent], data: st.DataObject) -> None:
    whole = frames_of(events)
    numbers = numbers_of(whole)
    after = data.draw(st.sampled_from(numbers))

    rest = frames_of(events, after)

    assert numbers == list(range(len(numbers)))
    assert whole.endswith(rest)
    assert numbers_of(rest) == numbers[after + 1 :]


@given(event_logs(TURN, is_ended=False))
def test_stream_has_no_id_lines_and_each_event_is_named(events: list[TurnEvent]) -> None:
    for frame in frames_of(events).decode().split("\n\n")[:-1]:
        name, data = frame.split("\n")
        assert name == f"event: {json.loads(data.removeprefix('data: '))['type']}"


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
    )

    outputs = [item["output"] for item in response_of(log_of(events))["output"]]

    assert json.loads(outputs[0])["omitted_bytes"] == 70_002
    assert outputs[1] == results[1].decode()
    assert json.loads(outputs[-1])["omitted_bytes"] == 60_002
    assert sum(map(len, outputs)) < 1_100_000
