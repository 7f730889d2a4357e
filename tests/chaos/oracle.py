"""The oracle: what must be true of all that the service shows of a user, by what its clients remember.

Each law is a function of the picture and the record; it knows no database, no process, and not what was broken when.
"""

import json
from collections.abc import Callable, Iterator
from datetime import datetime
from itertools import pairwise
from typing import Any

from tests.chaos.clockwork import NO_RESULT, Clockwork
from tests.chaos.picture import Picture
from tests.chaos.record import Anomaly, Json, Law, Record, Sent

Rule = Callable[[Picture, Record, Clockwork], Iterator[Anomaly]]


def anomalies(picture: Picture, record: Record, model: Clockwork) -> list[Anomaly]:
    """All that is wrong."""
    return [anomaly for rule in RULES for anomaly in rule(picture, record, model)]


def _every_message_is_there_once(picture: Picture, record: Record, model: Clockwork) -> Iterator[Anomaly]:
    """Stored once if it was acknowledged, and otherwise at most once, however often it was sent."""
    stored = [one for some in picture.messages.values() for one in some if one["role"] == "user"]
    by_text: dict[str, list[Json]] = {}
    for message in stored:
        by_text.setdefault(message["content"], []).append(message)
    for sent in record.sent:
        found = by_text.get(sent.body["message"], [])
        if len(found) > 1:
            yield Anomaly(Law.DOUBLED, f"{sent} is there as {found}")
        if sent.turn_id is not None and [one["turn_id"] for one in found] != [sent.turn_id]:
            yield Anomaly(Law.LOST, f"{sent} is there as {found}")


def _every_turn_ended_as_its_client_was_told(picture: Picture, record: Record, model: Clockwork) -> Iterator[Anomaly]:
    for sent in record.sent:
        if sent.turn_id is None or sent.turn_id not in picture.turns:
            continue
        turn = picture.turns[sent.turn_id]
        if sent.outcome not in {turn["status"], "unknown"}:
            yield Anomaly(Law.CHANGED, f"{sent} and now {turn}")
        if sent.answer is not None:
            yield from _answer_stays(sent, picture, turn)
    for ended in record.ended:
        if (now := picture.turns.get(ended["id"])) != ended:
            yield Anomaly(Law.CHANGED, f"a turn was shown as {ended} and is {now}")


def _answer_stays(sent: Sent, picture: Picture, turn: Json) -> Iterator[Anomaly]:
    answer = sent.told
    if picture.of_turn(turn["id"], "assistant") != [answer["message"]]:
        yield Anomaly(Law.LOST, f"{sent}, but {picture.of_turn(turn['id'], 'assistant')}")
    if [answer["tool_calls"], answer["usage"]] != [turn["tool_calls"], turn["usage"]]:
        yield Anomaly(Law.CHANGED, f"{sent}, but {turn}")


def _every_effect_happened_once(picture: Picture, record: Record, model: Clockwork) -> Iterator[Anomaly]:
    """A call that has a result has its effect, and no effect is there without one."""
    titles = picture.titles
    calls = [call for turn in picture.turns.values() for call in turn["tool_calls"]]
    made = {call["result"]["id"]: call for call in calls if call["result"] is not None and not call["is_error"]}
    yield from (Anomaly(Law.DOUBLED, f"{count} tasks are {title!r}") for title, count in titles.items() if count > 1)
    tasks = {task["id"]: task for task in picture.tasks}
    for id, call in made.items():
        if tasks.get(id) != call["result"]:
            yield Anomaly(Law.LOST, f"{call} has made {tasks.get(id)}")
    yield from (Anomaly(Law.HALF_WRITTEN, f"no call has made {tasks[id]}") for id in tasks.keys() - made.keys())


def _what_was_seen_is_there(picture: Picture, record: Record, model: Clockwork) -> Iterator[Anomaly]:
    """Events are the same bytes when they are read again."""
    for turn_id, seen in record.events.items():
        if turn_id in picture.turns:
            now = {event.seq: event for event in picture.events[turn_id]}
            for seq, event in seen.items():
                if now.get(seq) != event:
                    yield Anomaly(Law.LOST, f"{event.raw!r} is now {now.get(seq)}")


def _events_are_whole(picture: Picture, record: Record, model: Clockwork) -> Iterator[Anomaly]:
    """They begin with the start, end with the one end, and are counted without gaps."""
    for turn_id, events in picture.events.items():
        turn = picture.turns[turn_id]
        seqs, endings = [event.seq for event in events], [event.ending for event in events]
        if seqs != list(range(1, len(events) + 1)) or not events or events[0].name != "turn.started":
            yield Anomaly(Law.HALF_WRITTEN, f"{turn} has the events {[(one.seq, one.name) for one in events]}")
        if [ending for ending in endings if ending] != [turn["status"]] or endings[-1] is None:
            yield Anomaly(Law.HALF_WRITTEN, f"{turn} ended in {endings}")
        yield from _events_tell_the_turn(picture, turn, model)


def _events_tell_the_turn(picture: Picture, turn: Json, model: Clockwork) -> Iterator[Anomaly]:
    """The calls that the ledger has, and for an answer what the model said, told in pieces."""
    events = [(event.name, event.data) for event in picture.events[turn["id"]]]
    started = [data["id"] for name, data in events if name == "tool_call.started"]
    completed = {data["id"]: data["result"] for name, data in events if name == "tool_call.completed"}
    ledger = {call["id"]: call["result"] for call in turn["tool_calls"]}
    if started != list(ledger) or completed != {id: result for id, result in ledger.items() if result is not None}:
        yield Anomaly(Law.HALF_WRITTEN, f"{turn} has told of {started}, {completed}")
    said = "".join(data["text"] for name, data in events if name == "message.delta")
    tag = _tag(picture, turn)
    if turn["status"] == "completed":
        answers = [one["content"] for one in picture.of_turn(turn["id"], "assistant")]
        responses = [data["response"] for name, data in events if name == "turn.completed"]
        if not [said] == answers == responses == [model.answer(tag)]:
            yield Anomaly(Law.HALF_WRITTEN, f"{turn} said {said!r}, {answers}, {responses}, {model.answer(tag)!r}")
    elif not model.answer(tag).startswith(said):
        yield Anomaly(Law.HALF_WRITTEN, f"{turn} told {said!r} of {model.answer(tag)!r}")


def _messages_are_whole(picture: Picture, record: Record, model: Clockwork) -> Iterator[Anomaly]:
    """Without gaps; one of the person in each turn, and one of the assistant behind it if that is completed."""
    for conversation_id, messages in picture.messages.items():
        if [message["seq"] for message in messages] != list(range(1, len(messages) + 1)):
            yield Anomaly(Law.HALF_WRITTEN, f"{conversation_id} has the messages {messages}")
        for before, after in pairwise(messages):
            if after["role"] == "assistant" and after["turn_id"] != before["turn_id"]:
                yield Anomaly(Law.HALF_WRITTEN, f"{after} answers {before}")
    for turn_id, turn in picture.turns.items():
        asked, answered = (len(picture.of_turn(turn_id, role)) for role in ("user", "assistant"))
        if (asked, answered) != (1, int(turn["status"] == "completed")):
            yield Anomaly(Law.HALF_WRITTEN, f"{turn} has {asked} questions and {answered} answers")


def _nothing_failed(picture: Picture, record: Record, model: Clockwork) -> Iterator[Anomaly]:
    """A turn whose process is gone is interrupted. Nothing else was broken."""
    failed = [turn for turn in picture.turns.values() if turn["status"] == "failed"]
    yield from (Anomaly(Law.FAILED, f"{turn}") for turn in failed)


def _nothing_runs(picture: Picture, record: Record, model: Clockwork) -> Iterator[Anomaly]:
    """Every turn has ended, and its token with it."""
    for turn in picture.turns.values():
        if turn["status"] == "running":
            yield Anomaly(Law.STUCK, f"{turn}")
    for token in picture.tokens:
        turn = picture.turns.get(token["turn_id"], {"finished_at": None})
        if turn["finished_at"] is None:
            continue
        if _died(token) > datetime.fromisoformat(turn["finished_at"]):
            yield Anomaly(Law.STUCK, f"{token} outlives {turn}")


def _models_are_shown_the_ledger(picture: Picture, record: Record, model: Clockwork) -> Iterator[Anomaly]:
    """Later turns are given every call of an earlier one with its result, or told that there is none."""
    for call in (call for turn in picture.turns.values() for call in turn["tool_calls"]):
        shown = model.shown.get(call["id"])
        if shown is not None and _result(shown) != call["result"]:
            yield Anomaly(Law.WIRE, f"{call} was shown as {shown!r}")


def _result(shown: str) -> Any:
    return None if shown == NO_RESULT else json.loads(shown)


def _died(token: Json) -> datetime:
    """When it was revoked, or else expired."""
    return min(datetime.fromisoformat(token[end]) for end in ("revoked_at", "expires_at") if token[end])


def _tag(picture: Picture, turn: Json) -> str:
    """What its person's message is known by."""
    texts: list[str] = [message["content"] for message in picture.of_turn(turn["id"], "user")]
    return "".join(texts).partition(" ")[0].removeprefix("#")


RULES: tuple[Rule, ...] = (
    _every_message_is_there_once,
    _every_turn_ended_as_its_client_was_told,
    _every_effect_happened_once,
    _what_was_seen_is_there,
    _events_are_whole,
    _messages_are_whole,
    _nothing_failed,
    _nothing_runs,
    _models_are_shown_the_ledger,
)
