"""Decisions that pages with the AI SDK post, and the streams that continue their messages."""

import json
from typing import Any
from uuid import UUID

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec import Raw
from uuid_utils.compat import uuid7

from latchkey.domain.approval import NewDecision
from latchkey.domain.errors import Invalid
from latchkey.domain.tool_call import ToolCallId
from latchkey.domain.turn_event import (
    ApprovalDecidedEvent,
    ApprovalRequestedEvent,
    ToolCallCompletedEvent,
    ToolCallStartedEvent,
    TurnEvent,
    TurnInterruptedEvent,
    TurnStartedEvent,
    TurnWaitingEvent,
    numbered,
    without_withdrawn,
)
from latchkey.interfaces.http.frontends.ai_sdk.approvals import (
    ContinuationTranslator,
    PostedDecisions,
    posted_decisions,
)
from latchkey.interfaces.http.frontends.ai_sdk.history import assistant_message
from latchkey.interfaces.http.frontends.ai_sdk.requests import ChatRequest
from latchkey.interfaces.http.frontends.ai_sdk.translator import UIMessageTranslator
from tests.support.event_logs import TURN, continued_logs
from tests.unit.http.test_ai_sdk_translator import chunks_of, reduced, stream_of

CALL = "019ad111-0000-7000-8000-000000000001"
OTHER = "019ad111-0000-7000-8000-000000000002"
USER: dict[str, Any] = {"id": "m-1", "role": "user", "parts": [{"type": "text", "text": "Delete it"}]}


def part(id: str, state: str, **approval: Any) -> dict[str, Any]:
    return {
        "type": "tool-delete_task",
        "toolCallId": id,
        "state": state,
        "input": {"task_id": "changed"},
        "approval": {"id": id, **approval},
    }


def answer(*parts: dict[str, Any], **members: Any) -> dict[str, Any]:
    return {"id": str(TURN.id), "role": "assistant", "parts": [{"type": "step-start"}, *parts], **members}


def posted(*messages: dict[str, Any], **members: Any) -> PostedDecisions | None:
    body = {"id": "chat", "messages": messages, **members}
    return posted_decisions(msgspec.json.decode(msgspec.json.encode(body), type=ChatRequest))


APPROVED = answer(part(CALL, "approval-responded", approved=True))


@settings(deadline=None, max_examples=200)
@given(continued_logs(TURN), st.data())
def test_continued_message_equals_the_history(events: list[TurnEvent], data: st.DataObject) -> None:
    """At each stop of its stream the page decides. Some stops are not shown to it, since others decide as well."""
    events = without_withdrawn(events)
    stops = [index for index, event in enumerate(events[:-1]) if event.is_waiting and data.draw(st.booleans())]
    first, *others = [*stops, len(events) - 1]
    message = reduced(chunks_of(stream_of(events[: first + 1])))
    for before, stop in zip(stops, others, strict=True):
        respond(message, events[before + 1 : stop + 1])
        continued = posted(USER, message)
        assert continued
        translator = ContinuationTranslator(continued)
        stream = b"".join(map(translator.translate, events[: stop + 1])) + translator.end()
        message = reduced(chunks_of(stream), message)
        assert b"[DONE]" in stream

    expected = json.loads(msgspec.json.encode(assistant_message(events)))
    if expected is not None:
        assert [shown(part) for part in message["parts"]] == [shown(part) for part in expected["parts"]]
        assert message["metadata"] == expected["metadata"]


def respond(message: dict[str, Any], events: list[TurnEvent]) -> None:
    """Decide as the events do."""
    for event in events:
        decided = event.decode()
        if isinstance(decided, ApprovalDecidedEvent):
            for call in [part for part in message["parts"] if part.get("toolCallId") == str(decided.id)]:
                call["state"] = "approval-responded"
                call["approval"] |= {"approved": decided.decision == "approve"}


def shown(part: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in part.items() if name != "approval"}


def test_page_that_lacks_a_question_is_sent_the_question() -> None:
    """Its connection was lost before the second question: otherwise it would send its only decision again and again."""
    first, second = (ToolCallId(uuid7()) for _ in range(2))
    calls = [ToolCallStartedEvent(id, "delete_task", Raw(b"{}")) for id in (first, second)]
    asked = [ApprovalRequestedEvent(id, "delete_task", Raw(b"{}"), TURN.started_at) for id in (first, second)]
    started = TurnStartedEvent(TURN.conversation_id, TURN.agent)
    events = numbered(TURN.id, 0, started, calls[0], asked[0], calls[1], asked[1], TurnWaitingEvent())
    decided = numbered(
        TURN.id,
        len(events),
        ApprovalDecidedEvent(first, "approve", None, "user"),
        ToolCallCompletedEvent(first, "delete_task", Raw(b"{}"), is_error=False, duration_ms=1),
        TurnWaitingEvent(),
    )
    cut = b"".join(map(UIMessageTranslator().translate, events[:3]))
    for log in (events, [*events, *decided[:1], decided[-1]], [*events, *decided]):
        message = reduced(chunks_of(cut))
        respond(message, decided)
        continued = posted(USER, message)
        assert continued
        translator = ContinuationTranslator(continued)
        message = reduced(chunks_of(b"".join(map(translator.translate, log)) + translator.end()), message)
        states = [part["state"] for part in message["parts"] if "toolCallId" in part]
        assert states == ["output-available" if len(log) == 9 else "approval-responded", "approval-requested"]


def test_page_whose_call_has_no_result_is_sent_the_end_of_the_turn() -> None:
    """The process stopped while it made the call."""
    call = ToolCallId(UUID(CALL))
    events = numbered(
        TURN.id,
        0,
        TurnStartedEvent(TURN.conversation_id, TURN.agent),
        ToolCallStartedEvent(call, "delete_task", Raw(b"{}")),
        TurnWaitingEvent(),
        ApprovalDecidedEvent(call, "approve", None, "user"),
        TurnInterruptedEvent(),
    )
    continued = posted(USER, APPROVED)
    assert continued
    translator = ContinuationTranslator(continued)
    stream = b"".join(map(translator.translate, events)) + translator.end()

    types = [chunk["type"] for chunk in chunks_of(stream)]
    assert types == ["start", "tool-output-error", "message-metadata", "error", "finish"]
    assert stream.endswith(b"[DONE]\n\n")


def test_decisions_are_read_from_the_last_message() -> None:
    declined = part(OTHER, "approval-responded", approved=False, reason="Not now.")
    done = {"type": "tool-add_task", "toolCallId": "x", "state": "output-available", "input": {}, "output": 1}
    continued = posted(USER, answer(part(CALL, "approval-responded", approved=True), declined, done))

    assert continued
    assert continued.turn_id == TURN.id
    assert {str(id): decision for id, decision in continued.decisions.items()} == {
        CALL: NewDecision("approve"),
        OTHER: NewDecision("decline", "Not now."),
    }


def test_decisions_of_a_single_message_are_read() -> None:
    body = {"id": "chat", "message": APPROVED}
    continued = posted_decisions(msgspec.json.decode(msgspec.json.encode(body), type=ChatRequest))

    assert continued
    assert [str(id) for id in continued.decisions] == [CALL]


def test_decisions_are_read_from_the_message_that_the_client_names() -> None:
    """`sendMessage()` without a message continues an earlier answer."""
    later = {"id": "m-2", "role": "user", "parts": [{"type": "text", "text": "Well?"}]}

    assert posted(USER, APPROVED, later, messageId=str(TURN.id))


def test_partial_decision_leaves_the_other_call_undecided() -> None:
    continued = posted(USER, answer(part(CALL, "approval-responded", approved=True), part(OTHER, "approval-requested")))

    assert continued
    assert [str(id) for id in continued.decisions] == [CALL]
    assert continued.unfinished == continued.calls == {CALL, OTHER}


@pytest.mark.parametrize(
    ("messages", "members"),
    [
        ([USER], {}),
        ([USER, answer(part(CALL, "approval-requested"))], {}),
        ([USER, answer(part(CALL, "output-available", approved=True))], {}),
        ([USER, APPROVED, USER], {}),
        ([USER, APPROVED], {"trigger": "regenerate-message"}),
        ([USER, APPROVED], {"messageId": "m-1"}),
        ([{"role": "assistant", "content": "of an older release"}], {}),
        ([{"role": "assistant", "parts": "none"}], {}),
        ([{"id": "user-with-a-decision", "role": "user", "parts": APPROVED["parts"]}], {}),
    ],
)
def test_request_without_a_decision_on_the_newest_answer_is_an_ordinary_message(
    messages: list[dict[str, Any]], members: dict[str, Any]
) -> None:
    assert posted(*messages, **members) is None


@pytest.mark.parametrize(
    ("message", "path"),
    [
        (answer(part("not an id", "approval-responded", approved=True)), "$.messages[0].parts[1].approval.id"),
        (answer(part(CALL, "approval-responded")), "$.messages[0].parts[1].approval"),
        (answer(part(CALL, "approval-responded", approved="yes")), "$.messages[0].parts[1].approval.approved"),
        (
            answer(part(CALL, "approval-responded", approved=False, reason="x" * 1001)),
            "$.messages[0].parts[1].approval.reason",
        ),
        (APPROVED | {"id": "not the id of a turn"}, "$.messages[0].id"),
    ],
)
def test_malformed_decision_is_invalid(message: dict[str, Any], path: str) -> None:
    with pytest.raises(Invalid) as failure:
        posted(message)

    assert [error["path"] for error in failure.value.members["errors"]] == [path]  # type: ignore[attr-defined]
