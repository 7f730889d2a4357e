"""The oracle is no yes-man: each thing that can be wrong with what the service shows is found by its law."""

import json
from collections.abc import Callable
from copy import deepcopy
from dataclasses import replace
from typing import Any

import pytest

from tests.chaos.clockwork import NO_RESULT, Clockwork, asking
from tests.chaos.oracle import anomalies
from tests.chaos.picture import Picture
from tests.chaos.record import Json, Law, Record, Sent, TurnEvent

NOON, LATER = "2026-01-02T12:00:00Z", "2026-01-02T12:00:00.5Z"
TASK = {"id": "task", "title": "good.0"}
USAGE = {"requests": 2, "input_tokens": 20, "output_tokens": 10}
TEXT = "Adding good.0.\n\nword0 "


class Story:
    """A conversation with a turn that completed, and one that broke in its tool call."""

    def __init__(self) -> None:
        done = {"id": "c1", "name": "add_task", "result": TASK, "is_error": False}
        broken = {"id": "c2", "name": "add_task", "result": None, "is_error": True}
        good, bad = _turn("good", "completed", done), _turn("bad", "interrupted", broken)
        answer = _message("good", 2, "assistant", TEXT)
        self.picture = Picture(
            {"talk": [_message("good", 1, "user"), answer, _message("bad", 3, "user")]},
            {"good": good, "bad": bad},
            {"good": _events("good", *_completed()), "bad": _events("bad", *_interrupted())},
            [TASK],
            [_token("good", NOON), _token("bad", None)],
        )
        told = {"message": answer, "tool_calls": [done], "usage": USAGE}
        bad_sent = _sent("bad", "interrupted")
        self.record = Record([replace(_sent("good", "completed"), answer=json.dumps(told).encode()), bad_sent])
        for event in self.picture.events["bad"]:
            self.record.hear(event)
        self.record.show(deepcopy(bad))
        self.model = Clockwork(shown={"c1": json.dumps(TASK), "c2": NO_RESULT})
        self.model.said["good"] = {0: "Adding good.0.", 1: "word0 "}
        self.model.said["bad"] = {0: "Adding bad.0."}

    @property
    def laws(self) -> set[Law]:
        """Which are broken."""
        return {anomaly.law for anomaly in anomalies(self.picture, self.record, self.model)}


def _turn(id: str, status: str, *calls: Json) -> Json:
    ids = {"id": id, "conversation_id": "talk"}
    return {**ids, "status": status, "tool_calls": list(calls), "usage": USAGE, "finished_at": NOON}


def _message(turn_id: str, seq: int, role: str, content: str | None = None) -> Json:
    return {"turn_id": turn_id, "seq": seq, "role": role, "content": content or asking(turn_id, 1, 1)}


def _token(turn_id: str, revoked_at: str | None) -> Json:
    return {"turn_id": turn_id, "revoked_at": revoked_at, "expires_at": NOON}


def _sent(tag: str, outcome: str) -> Sent:
    return Sent("ada", tag, {"message": asking(tag, 1, 1)}, tag, turn_id=tag, outcome=outcome)


def _completed() -> list[tuple[str, Json]]:
    call = {"id": "c1", "result": TASK}
    deltas = [("message.delta", {"text": "Adding good.0."}), ("message.delta", {"text": "\n\nword0 "})]
    calls = [("tool_call.started", call), ("tool_call.completed", call)]
    return [("turn.started", {}), deltas[0], *calls, deltas[1], ("turn.completed", {"response": TEXT})]


def _interrupted() -> list[tuple[str, Json]]:
    said = ("message.delta", {"text": "Adding bad"})
    return [("turn.started", {}), said, ("tool_call.started", {"id": "c2"}), ("turn.interrupted", {})]


def _events(turn_id: str, *happened: tuple[str, Json]) -> list[TurnEvent]:
    return [_event(turn_id, seq, name, data) for seq, (name, data) in enumerate(happened, 1)]


def _event(turn_id: str, seq: int, name: str, data: Json) -> TurnEvent:
    text = json.dumps({"turn_id": turn_id, "seq": seq, **data})
    return TurnEvent(f"id: {seq}\nevent: {name}\ndata: {text}".encode())


def test_a_story_that_is_true_breaks_no_law() -> None:
    assert Story().laws == set()


DOCTORED: dict[str, tuple[Law, Callable[[Story], Any]]] = {
    "a message is gone": (Law.LOST, lambda it: it.picture.messages["talk"].pop(2)),
    "a message is there twice": (
        Law.DOUBLED,
        lambda it: it.picture.messages["talk"].append(_message("bad", 4, "user")),
    ),
    "messages have a gap": (Law.HALF_WRITTEN, lambda it: it.picture.messages["talk"][2].update(seq=4)),
    "an answer is gone": (Law.LOST, lambda it: it.picture.messages["talk"].pop(1)),
    "an answer is another": (Law.LOST, lambda it: it.picture.messages["talk"][1].update(content="no")),
    "a broken turn has an answer": (
        Law.HALF_WRITTEN,
        lambda it: it.picture.messages["talk"].append(_message("bad", 4, "assistant")),
    ),
    "an effect is gone": (Law.LOST, lambda it: it.picture.tasks.clear()),
    "an effect is there twice": (Law.DOUBLED, lambda it: it.picture.tasks.append({**TASK, "id": "another"})),
    "an effect without its call": (
        Law.HALF_WRITTEN,
        lambda it: it.picture.tasks.append({"id": "another", "title": "bad.0"}),
    ),
    "a call has lost its result": (
        Law.HALF_WRITTEN,
        lambda it: it.picture.turns["good"]["tool_calls"][0].update(result=None),
    ),
    "an event that was seen is gone": (Law.LOST, lambda it: it.picture.events["bad"].pop(1)),
    "an event that nobody saw is gone": (Law.HALF_WRITTEN, lambda it: it.picture.events["good"].pop(1)),
    "an event is another": (
        Law.LOST,
        lambda it: it.picture.events["bad"].__setitem__(1, _event("bad", 2, "message.delta", {"text": "Add"})),
    ),
    "a turn has no last event": (Law.HALF_WRITTEN, lambda it: it.picture.events["good"].pop()),
    "a turn has two last events": (
        Law.HALF_WRITTEN,
        lambda it: it.picture.events["good"].append(_event("good", 7, "turn.interrupted", {})),
    ),
    "the pieces are not the answer": (Law.HALF_WRITTEN, lambda it: it.model.said["good"].update({1: "word1 "})),
    "a turn did not end as was told": (Law.CHANGED, lambda it: setattr(it.record.sent[1], "outcome", "completed")),
    "a turn has changed since it ended": (Law.CHANGED, lambda it: it.picture.turns["bad"].update(usage={})),
    "a turn failed": (Law.FAILED, lambda it: it.picture.turns["bad"].update(status="failed")),
    "a turn still runs": (Law.STUCK, lambda it: it.picture.turns["bad"].update(status="running")),
    "a token outlives its turn": (
        Law.STUCK,
        lambda it: it.picture.tokens[0].update(revoked_at=LATER, expires_at=LATER),
    ),
    "a model was shown no result": (Law.WIRE, lambda it: it.model.shown.update(c1=NO_RESULT)),
    "a model was shown a result": (Law.WIRE, lambda it: it.model.shown.update(c2=json.dumps(TASK))),
}


@pytest.mark.parametrize("what", list(DOCTORED))
def test_a_story_that_is_not_breaks_one(what: str) -> None:
    law, doctor = DOCTORED[what]
    story = Story()
    doctor(story)

    assert law in story.laws
