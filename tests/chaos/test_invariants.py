"""The invariants can fail: each kind of corrupted data is detected by the right invariant."""

import json
from collections.abc import Callable
from copy import deepcopy
from dataclasses import replace
from typing import Any

import pytest

from tests.chaos.history import History, Invariant, Json, SentMessage, TurnEvent
from tests.chaos.invariants import check_invariants
from tests.chaos.scripted_model import NO_RESULT, ScriptedModel, message_text
from tests.chaos.snapshot import Snapshot

MORNING, RESUMED_AT = "2026-01-02T09:00:00Z", "2026-01-02T11:00:00Z"
NOON, LATER = "2026-01-02T12:00:00Z", "2026-01-02T12:00:00.5Z"
TASK = {"id": "task", "title": "good.0"}
RESUMED_TASK = {"id": "resumed task", "title": "resumed.0"}
ASKED_TASKS = [{"id": "asked task", "title": "asked.0.asked"}]
ASKED = {"id": "c5", "name": "request_task", "arguments": {"title": "asked.0.asked"}}
DELIVERY = {"id": "c6", "name": "deliver", "arguments": {"title": "asked.1.asked"}}
DECLINED = {"code": "declined", "detail": "The user has declined this call."}
USAGE = {"requests": 2, "input_tokens": 20, "output_tokens": 10}
TEXT = "Adding good.0.\n\nword0 "
RESUMED_TEXT = "Adding resumed.0.\n\nword0 "


class Data:
    """Consistent data: a conversation with four turns.

    One is completed, one was interrupted in its tool call, one was completed by its second attempt, and one asked about
    two calls, of which one was approved.
    """

    def __init__(self) -> None:
        completed = {"id": "c1", "name": "add_task", "result": TASK, "is_error": False}
        interrupted = {"id": "c2", "name": "add_task", "result": None, "is_error": True}
        good, bad = _turn("good", "completed", completed), _turn("bad", "interrupted", interrupted)
        resumed = {**_turn("resumed", "completed", {**completed, "id": "c3", "result": RESUMED_TASK}), "attempt": 2}
        calls = [
            {**ASKED, "result": ASKED_TASKS[0], "is_error": False},
            {**DELIVERY, "result": DECLINED, "is_error": True},
        ]
        asked = {**_turn("asked", "completed"), "tool_calls": calls, "attempt": 2}
        answer = _message("good", 2, "assistant", TEXT)
        first = [_message("good", 1, "user"), answer, _message("bad", 3, "user")]
        second = [_message("resumed", 4, "user"), _message("resumed", 5, "assistant", RESUMED_TEXT)]
        self.snapshot = Snapshot(
            {"chat": [*first, *second, _message("asked", 6, "user"), _message("asked", 7, "assistant", "word0 ")]},
            {"good": good, "bad": bad, "resumed": resumed, "asked": asked},
            {
                "good": _events("good", *_completed()),
                "bad": _events("bad", *_interrupted()),
                "resumed": _events("resumed", *_resumed()),
                "asked": _events("asked", *_asked()),
            },
            [TASK, RESUMED_TASK, *ASKED_TASKS],
            [],
            [_token("good", NOON), _token("bad", None), *_tokens_of("resumed"), *_tokens_of("asked")],
        )
        response = json.dumps({"message": answer, "tool_calls": good["tool_calls"], "usage": USAGE}).encode()
        sent = [replace(_sent("good", "completed"), response=response), _sent("bad", "interrupted")]
        self.history = History([*sent, _sent("resumed", "completed"), _sent("asked", "completed")], attempts=1)
        self.history.approvals = [deepcopy(ASKED)]
        self.history.decided = [{"id": "c5", "decision": "approve", "result": ASKED_TASKS[0]}]
        self.history.refused = [("c5", "decline")]
        for event in self.snapshot.events["bad"]:
            self.history.add_event(event)
        self.history.add_turn(deepcopy(bad))
        self.model = ScriptedModel(shown_results={"c1": json.dumps(TASK), "c2": NO_RESULT})
        self.model.texts["good"] = {0: "Adding good.0.", 1: "word0 "}
        self.model.texts["bad"] = {0: "Adding bad.0."}
        self.model.texts["asked"] = {0: "", 2: "word0 "}
        self.model.texts["resumed"] = {0: "Adding resumed.0.", 1: "word0 "}

    @property
    def violated_invariants(self) -> set[Invariant]:
        return {anomaly.invariant for anomaly in check_invariants(self.snapshot, self.history, self.model)}


def _turn(id: str, status: str, *calls: Json) -> Json:
    ids = {"id": id, "conversation_id": "chat"}
    calls_of_turn = [{**call, "arguments": {"title": f"{id}.0"}} for call in calls]
    return {**ids, "status": status, "tool_calls": calls_of_turn, "usage": USAGE, "finished_at": NOON, "attempt": 1}


def _message(turn_id: str, seq: int, role: str, content: str | None = None) -> Json:
    return {"turn_id": turn_id, "seq": seq, "role": role, "content": content or message_text(turn_id, 1, 1)}


def _token(turn_id: str, revoked_at: str | None, created_at: str = MORNING) -> Json:
    ids = {"id": f"{turn_id} {created_at}", "turn_id": turn_id}
    return {**ids, "created_at": created_at, "revoked_at": revoked_at, "expires_at": NOON}


def _tokens_of(turn_id: str) -> list[Json]:
    """Those of both attempts."""
    return [_token(turn_id, RESUMED_AT), _token(turn_id, NOON, RESUMED_AT)]


def _sent(tag: str, outcome: str) -> SentMessage:
    return SentMessage("ada", tag, {"message": message_text(tag, 1, 1)}, tag, turn_id=tag, outcome=outcome)


def _completed() -> list[tuple[str, Json]]:
    call = {"id": "c1", "result": TASK}
    deltas = [("message.delta", {"text": "Adding good.0."}), ("message.delta", {"text": "\n\nword0 "})]
    calls = [("tool_call.started", call), ("tool_call.completed", call)]
    return [("turn.started", {}), deltas[0], *calls, deltas[1], ("turn.completed", {"response": TEXT})]


def _interrupted() -> list[tuple[str, Json]]:
    delta = ("message.delta", {"text": "Adding bad"})
    return [("turn.started", {}), delta, ("tool_call.started", {"id": "c2"}), ("turn.interrupted", {})]


def _resumed() -> list[tuple[str, Json]]:
    """The process was stopped after `word0`."""
    call = {"id": "c3", "result": RESUMED_TASK}
    return [
        ("turn.started", {}),
        ("message.delta", {"text": "Adding resumed.0."}),
        ("tool_call.started", call),
        ("tool_call.completed", call),
        ("message.delta", {"text": "\n\nword0 "}),
        ("message.withdrawn", {"length": 17}),
        ("turn.resumed", {"attempt": 2, "reason": "handover"}),
        ("message.delta", {"text": "\n\nword0 "}),
        ("turn.completed", {"response": RESUMED_TEXT}),
    ]


def _asked() -> list[tuple[str, Json]]:
    """Two questions of one step, of which the first is approved."""
    decided = {"reason": None, "by": "user"}
    return [
        ("turn.started", {}),
        *((name, call) for call in (ASKED, DELIVERY) for name in ("tool_call.started", "approval.requested")),
        ("turn.waiting", {}),
        ("approval.decided", {"id": "c5", "decision": "approve", **decided}),
        ("tool_call.completed", {"id": "c5", "result": ASKED_TASKS[0]}),
        ("turn.waiting", {}),
        ("approval.decided", {"id": "c6", "decision": "decline", **decided}),
        ("tool_call.completed", {"id": "c6", "result": DECLINED}),
        ("turn.resumed", {"attempt": 2, "reason": "approval"}),
        ("message.delta", {"text": "word0 "}),
        ("turn.completed", {"response": "word0 "}),
    ]


def _events(turn_id: str, *events: tuple[str, Json]) -> list[TurnEvent]:
    return [_event(turn_id, seq, name, data) for seq, (name, data) in enumerate(events, 1)]


def _event(turn_id: str, seq: int, name: str, data: Json) -> TurnEvent:
    text = json.dumps({"turn_id": turn_id, "seq": seq, **data})
    return TurnEvent(f"id: {seq}\nevent: {name}\ndata: {text}".encode())


def _change(data: Data, seq: int, name: str, body: Json) -> None:
    """Replace an event of the resumed turn."""
    data.snapshot.events["resumed"][seq - 1] = _event("resumed", seq, name, body)


def _change_asked(data: Data, seq: int, name: str, body: Json) -> None:
    """Replace an event of the turn that asks."""
    data.snapshot.events["asked"][seq - 1] = _event("asked", seq, name, body)


def _swap_asked(data: Data, first: int, second: int) -> None:
    events = data.snapshot.events["asked"]
    before, after = events[first - 1], events[second - 1]
    _change_asked(data, first, after.name, after.data)
    _change_asked(data, second, before.name, before.data)


def test_consistent_data_violates_no_invariant() -> None:
    assert Data().violated_invariants == set()


CORRUPTIONS: dict[str, tuple[Invariant, Callable[[Data], Any]]] = {
    "a message is lost": (Invariant.LOST, lambda data: data.snapshot.messages["chat"].pop(2)),
    "a message is duplicated": (
        Invariant.DUPLICATED,
        lambda data: data.snapshot.messages["chat"].append(_message("bad", 4, "user")),
    ),
    "messages have a gap": (
        Invariant.PARTIALLY_WRITTEN,
        lambda data: data.snapshot.messages["chat"][2].update(seq=4),
    ),
    "an answer is lost": (Invariant.LOST, lambda data: data.snapshot.messages["chat"].pop(1)),
    "an answer has changed": (
        Invariant.LOST,
        lambda data: data.snapshot.messages["chat"][1].update(content="no"),
    ),
    "an interrupted turn has an answer": (
        Invariant.PARTIALLY_WRITTEN,
        lambda data: data.snapshot.messages["chat"].append(_message("bad", 4, "assistant")),
    ),
    "an effect is lost": (Invariant.LOST, lambda data: data.snapshot.tasks.clear()),
    "an effect is duplicated": (
        Invariant.DUPLICATED,
        lambda data: data.snapshot.tasks.append({**TASK, "id": "another"}),
    ),
    "an effect has no tool call": (
        Invariant.PARTIALLY_WRITTEN,
        lambda data: data.snapshot.tasks.append({"id": "another", "title": "bad.0"}),
    ),
    "a tool call has lost its result": (
        Invariant.PARTIALLY_WRITTEN,
        lambda data: data.snapshot.turns["good"]["tool_calls"][0].update(result=None),
    ),
    "a received event is lost": (Invariant.LOST, lambda data: data.snapshot.events["bad"].pop(1)),
    "an event that no client received is lost": (
        Invariant.PARTIALLY_WRITTEN,
        lambda data: data.snapshot.events["good"].pop(1),
    ),
    "a received event has changed": (
        Invariant.LOST,
        lambda data: data.snapshot.events["bad"].__setitem__(1, _event("bad", 2, "message.delta", {"text": "Add"})),
    ),
    "a turn has no last event": (
        Invariant.PARTIALLY_WRITTEN,
        lambda data: data.snapshot.events["good"].pop(),
    ),
    "a turn has two last events": (
        Invariant.PARTIALLY_WRITTEN,
        lambda data: data.snapshot.events["good"].append(_event("good", 7, "turn.interrupted", {})),
    ),
    "the deltas are not the answer": (
        Invariant.PARTIALLY_WRITTEN,
        lambda data: data.model.texts["good"].update({1: "word1 "}),
    ),
    "the outcome is not the one received": (
        Invariant.CHANGED,
        lambda data: setattr(data.history.sent[1], "outcome", "completed"),
    ),
    "a finished turn has changed": (Invariant.CHANGED, lambda data: data.snapshot.turns["bad"].update(usage={})),
    "a turn has failed": (Invariant.FAILED, lambda data: data.snapshot.turns["bad"].update(status="failed")),
    "text is withdrawn from a finished step": (
        Invariant.LOST,
        lambda data: _change(data, 6, "message.withdrawn", {"length": 6}),
    ),
    "more text is withdrawn than there is": (
        Invariant.CHANGED,
        lambda data: _change(data, 6, "message.withdrawn", {"length": 60}),
    ),
    "text is withdrawn and the turn does not go on": (
        Invariant.CHANGED,
        lambda data: _change(data, 7, "message.delta", {"text": "word0 "}),
    ),
    "an attempt has no number of its own": (
        Invariant.PARTIALLY_WRITTEN,
        lambda data: _change(data, 7, "turn.resumed", {"attempt": 1, "reason": "handover"}),
    ),
    "a turn is tried too often": (
        Invariant.STUCK,
        lambda data: _change(data, 7, "turn.resumed", {"attempt": 2, "reason": "recovery"}),
    ),
    "a turn is interrupted before its last attempt": (
        Invariant.INTERRUPTED,
        lambda data: setattr(data.history, "attempts", 2),
    ),
    "a call is made again": (
        Invariant.DUPLICATED,
        lambda data: data.snapshot.turns["resumed"]["tool_calls"].append(
            {**data.snapshot.turns["resumed"]["tool_calls"][0], "id": "c4"}
        ),
    ),
    "the token of a former attempt is valid": (
        Invariant.STUCK,
        lambda data: data.snapshot.tokens[2].update(revoked_at=NOON),
    ),
    "an attempt has no token of its own": (
        Invariant.PARTIALLY_WRITTEN,
        lambda data: data.snapshot.tokens.pop(2),
    ),
    "a question is not decided": (Invariant.STUCK, lambda data: _change_asked(data, 7, "turn.waiting", {})),
    "a question is decided twice": (
        Invariant.STUCK,
        lambda data: _change_asked(data, 10, "approval.decided", {"id": "c5", "decision": "approve", "by": "user"}),
    ),
    "a call is made before it is approved": (
        Invariant.PARTIALLY_WRITTEN,
        lambda data: _swap_asked(data, 7, 8),
    ),
    "a call is made and was not asked about": (
        Invariant.UNAPPROVED,
        lambda data: _change_asked(data, 3, "message.delta", {"text": ""}),
    ),
    "a call was declined and made": (
        Invariant.UNAPPROVED,
        lambda data: data.snapshot.turns["asked"]["tool_calls"][1].update(result={"title": "asked.1.asked"}),
    ),
    "a call was approved and declined": (
        Invariant.LOST,
        lambda data: data.snapshot.turns["asked"]["tool_calls"][0].update(result=DECLINED, is_error=True),
    ),
    "other arguments were shown": (
        Invariant.CHANGED,
        lambda data: data.history.approvals[0].update(arguments={"title": "another"}),
    ),
    "other arguments were asked about": (
        Invariant.CHANGED,
        lambda data: _change_asked(data, 3, "approval.requested", {**ASKED, "arguments": {}}),
    ),
    "a decision has changed": (
        Invariant.CHANGED,
        lambda data: data.history.decided[0].update(decision="decline"),
    ),
    "an approved call has another result": (
        Invariant.CHANGED,
        lambda data: data.history.decided[0].update(result={"id": "another"}),
    ),
    "a decision was refused and is stored": (
        Invariant.CHANGED,
        lambda data: data.history.refused.append(("c5", "approve")),
    ),
    "a waiting turn goes on by itself": (
        Invariant.PARTIALLY_WRITTEN,
        lambda data: _change_asked(data, 12, "message.delta", {"text": "word0 "}),
    ),
    "a delivery is made twice": (Invariant.DUPLICATED, lambda data: data.model.deliveries.update({"asked.1.asked": 2})),
    "a delivery is not made": (
        Invariant.LOST,
        lambda data: data.snapshot.turns["asked"]["tool_calls"][1].update(result={}, is_error=False),
    ),
    "a turn waits": (Invariant.STUCK, lambda data: data.snapshot.turns["bad"].update(status="waiting")),
    "a turn still runs": (Invariant.STUCK, lambda data: data.snapshot.turns["bad"].update(status="running")),
    "a token is valid longer than its turn": (
        Invariant.STUCK,
        lambda data: data.snapshot.tokens[0].update(revoked_at=LATER, expires_at=LATER),
    ),
    "the model received no result": (
        Invariant.MODEL_REFUSED,
        lambda data: data.model.shown_results.update(c1=NO_RESULT),
    ),
    "the model received a result that is not recorded": (
        Invariant.MODEL_REFUSED,
        lambda data: data.model.shown_results.update(c2=json.dumps(TASK)),
    ),
}


@pytest.mark.parametrize("corruption", list(CORRUPTIONS))
def test_corrupted_data_violates_the_invariant(corruption: str) -> None:
    invariant, corrupt = CORRUPTIONS[corruption]
    data = Data()
    corrupt(data)

    assert invariant in data.violated_invariants
