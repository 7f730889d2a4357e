"""The translation of a turn's events for the AI SDK, whose reducer of UI message streams is ported here."""

import json
from typing import Any

import msgspec
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace
from uuid_utils.compat import uuid7

from latchkey.domain.artifact import ArtifactId, ArtifactReference
from latchkey.domain.turn_event import (
    EventData,
    MessageDeltaEvent,
    TurnCancelledEvent,
    TurnEvent,
    TurnStartedEvent,
    numbered,
)
from latchkey.interfaces.http.frontends.ai_sdk.history import assistant_message
from latchkey.interfaces.http.frontends.ai_sdk.translator import UIMessageTranslator
from tests.support.event_logs import TURN, event_logs

FIELDS = {
    "start": {"messageId", "messageMetadata"},
    "start-step": set(),
    "text-start": {"id"},
    "text-delta": {"id", "delta"},
    "text-end": {"id"},
    "tool-input-available": {"toolCallId", "toolName", "input", "providerExecuted"},
    "tool-output-available": {"toolCallId", "output", "providerExecuted"},
    "tool-output-error": {"toolCallId", "errorText", "providerExecuted"},
    "data-artifact": {"id", "data"},
    "finish-step": set(),
    "message-metadata": {"messageMetadata"},
    "error": {"errorText"},
    "abort": set(),
    "finish": {"messageMetadata"},
}
"""All chunks, with the fields that every release of ai 5, 6 and 7 accepts."""
OPTIONAL = {("finish", "messageMetadata")}


@settings(deadline=None, max_examples=200)
@given(event_logs(TURN))
def test_history_equals_messages_that_the_client_builds_from_the_stream(events: list[TurnEvent]) -> None:
    live = reduced(chunks_of(stream_of(events)))
    history = json.loads(msgspec.json.encode(assistant_message(events)))

    if all(part["type"] == "step-start" for part in live["parts"]):
        assert history is None
    else:
        assert history == live


@settings(deadline=None)
@given(event_logs(TURN))
def test_stream_has_known_chunks_only_and_ends_with_done(events: list[TurnEvent]) -> None:
    stream = stream_of(events)
    for chunk in chunks_of(stream):
        fields = FIELDS[chunk["type"]]
        required = fields - {name for type, name in OPTIONAL if type == chunk["type"]}
        assert required <= chunk.keys() - {"type"} <= fields
    assert stream.endswith(b"data: [DONE]\n\n")
    assert stream.count(b"[DONE]") == 1


@settings(deadline=None)
@given(event_logs(TURN))
def test_last_step_of_an_ended_turn_is_not_one_whose_calls_all_have_succeeded(events: list[TurnEvent]) -> None:
    """Otherwise early releases of ai 5 send the message again, also after a failure."""
    last_step: list[dict[str, Any]] = []
    for part in reduced(chunks_of(stream_of(events)))["parts"]:
        last_step = [] if part["type"] == "step-start" else [*last_step, part]
    states = [part["state"] for part in last_step if part["type"].startswith("tool-")]

    assert not states or "output-error" in states


@settings(deadline=None)
@given(event_logs(TURN), st.integers(0, 20))
def test_stream_is_a_function_of_the_log(events: list[TurnEvent], cut: int) -> None:
    """A client that comes back gets the same bytes, however the events are divided into batches."""
    translator = UIMessageTranslator()
    before = b"".join(map(translator.translate, events[:cut]))
    after = b"".join(map(translator.translate, events[cut:]))

    assert before + after == stream_of(events)


@given(event_logs(TURN, is_ended=False))
def test_event_of_a_later_release_is_left_out(events: list[TurnEvent]) -> None:
    later = TurnEvent(TURN.id, 99, "turn.of_a_later_release", b"{}")
    translator = UIMessageTranslator()
    stream = b"".join(map(translator.translate, events))

    assert translator.translate(later) == b""
    assert b"[DONE]" not in stream


def test_further_version_of_an_artifact_replaces_the_part_of_the_first() -> None:
    artifact = ArtifactReference(ArtifactId(uuid7()), "generated_file", "Plan", 1)
    started = TurnStartedEvent(TURN.conversation_id, TURN.agent)
    data: list[EventData] = [
        started,
        artifact,
        MessageDeltaEvent("Better:"),
        replace(artifact, version=2),
        TurnCancelledEvent(),
    ]
    message = assistant_message(numbered(TURN.id, 0, *data))

    assert message
    assert [part["data"].version for part in message["parts"] if part["type"] == "data-artifact"] == [2]
    assert [part["type"] for part in message["parts"]] == ["step-start", "data-artifact", "text"]


def stream_of(events: list[TurnEvent]) -> bytes:
    return b"".join(map(UIMessageTranslator().translate, events))


def chunks_of(stream: bytes) -> list[dict[str, Any]]:
    frames = [frame.removeprefix("data: ") for frame in stream.decode().split("\n\n")[:-1]]
    return [json.loads(frame) for frame in frames if frame != "[DONE]"]


def reduced(chunks: list[dict[str, Any]]) -> dict[str, Any]:
    """The message that `processUIMessageStream` of ai 7 makes. Raises `KeyError` where that throws."""
    message: dict[str, Any] = {"id": "made up by the client", "role": "assistant", "metadata": {}, "parts": []}
    parts: list[dict[str, Any]] = message["parts"]
    texts: dict[str, dict[str, Any]] = {}
    calls: dict[str, dict[str, Any]] = {}
    for chunk in chunks:
        message["metadata"] |= chunk.get("messageMetadata", {})
        match chunk["type"]:
            case "start":
                message["id"] = chunk["messageId"]
            case "start-step":
                parts.append({"type": "step-start"})
            case "finish-step":
                texts = {}
            case "text-start":
                texts[chunk["id"]] = {"type": "text", "text": "", "state": "streaming"}
                parts.append(texts[chunk["id"]])
            case "text-delta":
                texts[chunk["id"]]["text"] += chunk["delta"]
            case "text-end":
                texts.pop(chunk["id"])["state"] = "done"
            case "tool-input-available" | "tool-output-available" | "tool-output-error":
                _reduce_call(chunk, calls, parts)
            case "data-artifact":
                same = [part for part in parts if part["type"] == chunk["type"] and part["id"] == chunk["id"]]
                parts.append(chunk) if not same else same[0].update(data=chunk["data"])
    return message


def _reduce_call(chunk: dict[str, Any], calls: dict[str, dict[str, Any]], parts: list[dict[str, Any]]) -> None:
    id = chunk["toolCallId"]
    rest: dict[str, Any] = {name: chunk[name] for name in ("input", "output", "errorText") if name in chunk}
    if chunk["type"] == "tool-input-available":
        calls[id] = {"type": f"tool-{chunk['toolName']}", "toolCallId": id, "providerExecuted": True}
        parts.append(calls[id])
    calls[id].update(rest, state=chunk["type"].removeprefix("tool-"))
