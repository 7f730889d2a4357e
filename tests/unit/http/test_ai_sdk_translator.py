"""The translation of a turn's events for the AI SDK, whose reducer of UI message streams is ported here."""

import json
from typing import Any

import msgspec
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace
from uuid_utils.compat import uuid7

from latchkey.domain.artifact import ArtifactId, ArtifactReference
from latchkey.domain.errors import StreamBroken
from latchkey.domain.turn_event import (
    EventData,
    MessageDeltaEvent,
    TurnCancelledEvent,
    TurnEvent,
    TurnStartedEvent,
    numbered,
    without_withdrawn,
)
from latchkey.interfaces.http.frontends.ai_sdk.history import assistant_message
from latchkey.interfaces.http.frontends.ai_sdk.translator import UIMessageTranslator
from tests.support.event_logs import TURN, continued_logs, event_logs

LOGS = st.one_of(event_logs(TURN), continued_logs(TURN))
VERSIONS = st.sampled_from(["5", "6"])

FIELDS = {
    "start": {"messageId", "messageMetadata"},
    "start-step": set(),
    "text-start": {"id"},
    "text-delta": {"id", "delta"},
    "text-end": {"id"},
    "tool-input-available": {"toolCallId", "toolName", "input", "providerExecuted"},
    "tool-output-available": {"toolCallId", "output", "providerExecuted"},
    "tool-output-error": {"toolCallId", "errorText", "providerExecuted"},
    "tool-approval-request": {"approvalId", "toolCallId"},
    "tool-output-denied": {"toolCallId"},
    "data-artifact": {"id", "data"},
    "finish-step": set(),
    "message-metadata": {"messageMetadata"},
    "error": {"errorText"},
    "abort": set(),
    "finish": {"messageMetadata"},
}
"""All chunks, with the fields that every release of ai 5, 6 and 7 accepts."""
NOT_IN_5 = {"tool-approval-request", "tool-output-denied"}
OPTIONAL = {("finish", "messageMetadata")}


@settings(deadline=None, max_examples=200)
@given(LOGS, VERSIONS)
def test_history_equals_messages_that_the_client_builds_from_the_stream(events: list[TurnEvent], version: str) -> None:
    live = reduced(chunks_of(stream_of(events, version)))
    history = json.loads(msgspec.json.encode(assistant_message(events, has_approvals=version != "5")))

    if all(part["type"] == "step-start" for part in live["parts"]):
        assert history is None
    else:
        assert without_decisions(history) == live


@settings(deadline=None)
@given(LOGS, VERSIONS)
def test_stream_has_known_chunks_only_and_ends_with_done(events: list[TurnEvent], version: str) -> None:
    stream = stream_of(events, version)
    for chunk in chunks_of(stream):
        fields = FIELDS[chunk["type"]]
        required = fields - {name for type, name in OPTIONAL if type == chunk["type"]}
        assert required <= chunk.keys() - {"type"} <= fields
        assert version != "5" or chunk["type"] not in NOT_IN_5
    assert stream.endswith(b"data: [DONE]\n\n")
    assert stream.count(b"[DONE]") == 1


@settings(deadline=None)
@given(LOGS, VERSIONS)
def test_last_step_of_an_ended_stream_is_not_one_whose_calls_all_have_succeeded(
    events: list[TurnEvent], version: str
) -> None:
    """Otherwise early releases of ai 5 send the message again, also after a failure."""
    states = [part["state"] for part in last_step(reduced(chunks_of(stream_of(events, version))))]

    assert not states or not {"output-available"}.issuperset(states)


@settings(deadline=None)
@given(LOGS)
def test_ended_stream_has_no_decision_that_the_client_sends_again(events: list[TurnEvent]) -> None:
    """`lastAssistantMessageIsCompleteWithApprovalResponses` is true of a step with decisions and without questions."""
    chunks = chunks_of(stream_of(events))
    states = [part["state"] for part in last_step(reduced(chunks))]

    assert "approval-responded" not in states
    is_waiting = chunks[-1].get("messageMetadata") == {"status": "waiting"}
    assert is_waiting == (events[-1].is_waiting)
    assert not is_waiting or "approval-requested" in states


@settings(deadline=None)
@given(event_logs(TURN), st.integers(0, 20))
def test_stream_is_a_function_of_the_log(events: list[TurnEvent], cut: int) -> None:
    """A client that comes back gets the same bytes, however the events are divided into batches."""
    translator = UIMessageTranslator()
    before = b"".join(map(translator.translate, events[:cut]))
    after = b"".join(map(translator.translate, events[cut:]))

    assert before + after == stream_of(events)


@settings(deadline=None)
@given(continued_logs(TURN))
def test_stream_breaks_when_text_that_it_has_sent_is_withdrawn(events: list[TurnEvent]) -> None:
    """A page that resumes the stream gets it from the first event, without that text."""
    translator, is_broken = UIMessageTranslator(), False
    try:
        for event in events:
            translator.translate(event)
    except StreamBroken:
        is_broken = True

    assert is_broken == any(event.name == "message.withdrawn" for event in events)


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


def stream_of(events: list[TurnEvent], version: str = "6") -> bytes:
    """The whole stream of a client that asks for it now."""
    translator = UIMessageTranslator(has_approvals=version != "5")
    return b"".join(map(translator.translate, without_withdrawn(events))) + translator.end()


def chunks_of(stream: bytes) -> list[dict[str, Any]]:
    frames = [frame.removeprefix("data: ") for frame in stream.decode().split("\n\n")[:-1]]
    return [json.loads(frame) for frame in frames if frame != "[DONE]"]


def reduced(chunks: list[dict[str, Any]], message: dict[str, Any] | None = None) -> dict[str, Any]:
    """The message that `processUIMessageStream` of ai 7 makes or continues. Raises `KeyError` where that throws."""
    message = message or {"id": "made up by the client", "role": "assistant", "metadata": {}, "parts": []}
    parts: list[dict[str, Any]] = message["parts"]
    texts: dict[str, dict[str, Any]] = {}
    calls: dict[str, dict[str, Any]] = {part["toolCallId"]: part for part in parts if "toolCallId" in part}
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
            case "data-artifact":
                same = [part for part in parts if part["type"] == chunk["type"] and part["id"] == chunk["id"]]
                parts.append(chunk) if not same else same[0].update(data=chunk["data"])
            case _ if "toolCallId" in chunk:
                _reduce_call(chunk, calls, parts)
    return message


def _reduce_call(chunk: dict[str, Any], calls: dict[str, dict[str, Any]], parts: list[dict[str, Any]]) -> None:
    id, state = chunk["toolCallId"], chunk["type"].removeprefix("tool-")
    rest: dict[str, Any] = {name: chunk[name] for name in ("input", "output", "errorText") if name in chunk}
    if chunk["type"] == "tool-approval-request":
        rest, state = {"approval": {"id": chunk["approvalId"]}}, "approval-requested"
    if chunk["type"] == "tool-input-available":
        last_step_start = max(index for index, part in enumerate(parts) if part["type"] == "step-start")
        if calls.get(id) not in parts[last_step_start:]:
            calls[id] = {"type": f"tool-{chunk['toolName']}", "toolCallId": id, "providerExecuted": True}
            parts.append(calls[id])
    calls[id].update(rest, state=state)


def last_step(message: dict[str, Any]) -> list[dict[str, Any]]:
    """The tool calls of the last step."""
    calls: list[dict[str, Any]] = []
    for part in message["parts"]:
        calls = [] if part["type"] == "step-start" else [*calls, part]
    return [part for part in calls if part["type"].startswith("tool-")]


def without_decisions(message: dict[str, Any]) -> dict[str, Any]:
    """The message as a client has it that did not make the decisions: no chunk before ai 7 has them."""
    parts = [
        part | {"approval": {"id": part["approval"]["id"]}} if "approval" in part else part for part in message["parts"]
    ]
    return message | {"parts": parts}
