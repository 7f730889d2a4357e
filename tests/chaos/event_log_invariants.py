"""The invariants of event logs: what must hold for the events of each turn, given what is stored of it."""

from collections.abc import Iterator
from datetime import datetime
from itertools import pairwise
from typing import Any

from tests.chaos.history import Anomaly, History, Invariant, Json
from tests.chaos.scripted_model import ScriptedModel
from tests.chaos.snapshot import Snapshot
from tests.support.answer_text import answer_text


def received_events_are_stored(snapshot: Snapshot, history: History, model: ScriptedModel) -> Iterator[Anomaly]:
    """Every event that a client received is stored, with the same bytes."""
    for turn_id, received in history.events.items():
        if turn_id in snapshot.turns:
            stored = {event.seq: event for event in snapshot.events[turn_id]}
            for seq, event in received.items():
                if stored.get(seq) != event:
                    yield Anomaly(Invariant.LOST, f"{event.raw!r} is now {stored.get(seq)}")


def event_logs_are_complete(snapshot: Snapshot, history: History, model: ScriptedModel) -> Iterator[Anomaly]:
    """Events begin with `turn.started`, end with exactly one last event, and are numbered without gaps."""
    for turn_id, events in snapshot.events.items():
        turn = snapshot.turns[turn_id]
        seqs, statuses = [event.seq for event in events], [event.final_status for event in events]
        if seqs != list(range(1, len(events) + 1)) or not events or events[0].name != "turn.started":
            names = [(event.seq, event.name) for event in events]
            yield Anomaly(Invariant.PARTIALLY_WRITTEN, f"{turn} has the events {names}")
        if [status for status in statuses if status] != [turn["status"]] or statuses[-1] is None:
            yield Anomaly(Invariant.PARTIALLY_WRITTEN, f"{turn} has the last events {statuses}")
        yield from _events_match_turn(snapshot, turn, model)


def _events_match_turn(snapshot: Snapshot, turn: Json, model: ScriptedModel) -> Iterator[Anomaly]:
    """The events have the recorded tool calls, and their text is what the model answered."""
    events = snapshot.events[turn["id"]]
    started = [event.data["id"] for event in events if event.name == "tool_call.started"]
    completed = [(event.data["id"], event.data["result"]) for event in events if event.name == "tool_call.completed"]
    recorded = {call["id"]: call["result"] for call in turn["tool_calls"]}
    results = {id: result for id, result in recorded.items() if result is not None}
    if started != list(recorded) or dict(completed) != results or len(completed) != len(results):
        yield Anomaly(Invariant.PARTIALLY_WRITTEN, f"{turn} has events of the calls {started}, {completed}")
    text, expected = answer_text(events), model.full_answer(snapshot.tag(turn))
    if turn["status"] == "completed":
        answers = [message["content"] for message in snapshot.messages_of_turn(turn["id"], "assistant")]
        responses = [event.data["response"] for event in events if event.name == "turn.completed"]
        if not [text] == answers == responses == [expected]:
            yield Anomaly(Invariant.PARTIALLY_WRITTEN, f"{turn} has {text!r}, {answers}, {responses}, not {expected!r}")
    elif not expected.startswith(text):
        yield Anomaly(Invariant.PARTIALLY_WRITTEN, f"{turn} has {text!r}, which is not the start of {expected!r}")


def withdrawals_keep_finished_steps(snapshot: Snapshot, history: History, model: ScriptedModel) -> Iterator[Anomaly]:
    """Only a continued attempt withdraws text, and only that after the last tool call: no word of a finished step."""
    for turn_id, events in snapshot.events.items():
        kept = 0
        for index, (event, following) in enumerate(pairwise(events)):
            if event.name == "tool_call.started":
                kept = len(answer_text(events[:index]))
            if event.name != "message.withdrawn":
                continue
            length, shown = event.data["length"], len(answer_text(events[:index]))
            if following.name != "turn.resumed" or length >= shown:
                yield Anomaly(Invariant.CHANGED, f"{turn_id}: {event.raw!r} of {shown}, before {following.raw!r}")
            if length < kept:
                yield Anomaly(Invariant.LOST, f"{turn_id}: {event.raw!r} withdraws text of a step that ended at {kept}")


def attempts_are_counted(snapshot: Snapshot, history: History, model: ScriptedModel) -> Iterator[Anomaly]:
    """Attempts are numbered without gaps, and no turn is interrupted before its last attempt."""
    for turn_id, events in snapshot.events.items():
        turn = snapshot.turns[turn_id]
        resumed = [event.data for event in events if event.name == "turn.resumed"]
        numbers = [1, *(data["attempt"] for data in resumed)]
        if numbers != list(range(1, turn["attempt"] + 1)):
            yield Anomaly(Invariant.PARTIALLY_WRITTEN, f"{turn} has the attempts {numbers}")
        recoveries = sum(data["reason"] == "recovery" for data in resumed)
        if recoveries >= history.attempts:
            yield Anomaly(Invariant.STUCK, f"{turn} was tried {recoveries} times again")
        if turn["status"] == "interrupted" and recoveries + 1 < history.attempts:
            yield Anomaly(Invariant.INTERRUPTED, f"{turn} was tried {recoveries} times again")


def calls_are_made_once(snapshot: Snapshot, history: History, model: ScriptedModel) -> Iterator[Anomaly]:
    """No later attempt makes a recorded call again. The model never repeats a call by itself."""
    for turn in snapshot.turns.values():
        made: dict[str, Any] = {}
        for call in turn["tool_calls"]:
            request = f"{call['name']} {call['arguments']}"
            if made.setdefault(request, call["id"]) != call["id"]:
                yield Anomaly(Invariant.DUPLICATED, f"{turn} has {request} twice")


def former_tokens_end(snapshot: Snapshot, history: History, model: ScriptedModel) -> Iterator[Anomaly]:
    """Each attempt has a token, which ends not later than the next attempt begins, nor later than the turn."""
    for turn in snapshot.turns.values():
        tokens = sorted(
            (token for token in snapshot.tokens if token["turn_id"] == turn["id"]), key=lambda token: token["id"]
        )
        if len(tokens) != turn["attempt"]:
            yield Anomaly(Invariant.PARTIALLY_WRITTEN, f"{turn} has the tokens {tokens}")
        ends = [*(token["created_at"] for token in tokens[1:]), turn["finished_at"]]
        for token, end in zip(tokens, ends, strict=False):
            if end is not None and _token_end(token) > datetime.fromisoformat(end):
                yield Anomaly(Invariant.STUCK, f"{token} is valid longer than {end}: {turn}")


def _token_end(token: Json) -> datetime:
    """The time of revocation or expiry, whichever came first."""
    return min(datetime.fromisoformat(token[key]) for key in ("revoked_at", "expires_at") if token[key])
