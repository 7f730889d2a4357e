"""The invariants: what must hold for all data of a user, given the history of its clients.

Each check is a function of the snapshot and the history. It knows no database, no process and no fault.
"""

import json
from collections.abc import Iterator
from itertools import pairwise
from typing import Any

from tests.chaos.approval_invariants import APPROVAL_CHECKS, Check
from tests.chaos.event_log_invariants import (
    attempts_are_counted,
    calls_are_made_once,
    event_logs_are_complete,
    former_tokens_end,
    received_events_are_stored,
    withdrawals_keep_finished_steps,
)
from tests.chaos.history import UNFINISHED, Anomaly, History, Invariant, Json, SentMessage
from tests.chaos.scripted_model import NO_RESULT, ScriptedModel
from tests.chaos.snapshot import Snapshot

OUTCOME_STATUS = {"left": "cancelled"}
"""A waiting turn ends when the user sends another message."""


def check_invariants(snapshot: Snapshot, history: History, model: ScriptedModel) -> list[Anomaly]:
    """All violated invariants."""
    return [anomaly for check in CHECKS for anomaly in check(snapshot, history, model)]


def _messages_are_stored_once(snapshot: Snapshot, history: History, model: ScriptedModel) -> Iterator[Anomaly]:
    """An acknowledged message is stored once. Any other message is stored at most once, despite retries."""
    stored = [message for messages in snapshot.messages.values() for message in messages if message["role"] == "user"]
    by_text: dict[str, list[Json]] = {}
    for message in stored:
        by_text.setdefault(message["content"], []).append(message)
    for sent in history.sent:
        matches = by_text.get(sent.body["message"], [])
        if len(matches) > 1:
            yield Anomaly(Invariant.DUPLICATED, f"{sent} is stored as {matches}")
        if sent.turn_id is not None and [match["turn_id"] for match in matches] != [sent.turn_id]:
            yield Anomaly(Invariant.LOST, f"{sent} is stored as {matches}")


def _outcomes_are_stable(snapshot: Snapshot, history: History, model: ScriptedModel) -> Iterator[Anomaly]:
    """Each turn has the outcome that its client received, and a finished turn never changes."""
    for sent in history.sent:
        if sent.turn_id is None or sent.turn_id not in snapshot.turns:
            continue
        turn = snapshot.turns[sent.turn_id]
        if OUTCOME_STATUS.get(sent.outcome or "", sent.outcome) not in {turn["status"], "unknown"}:
            yield Anomaly(Invariant.CHANGED, f"{sent} and now {turn}")
        if sent.response is not None:
            yield from _response_is_stored(sent, snapshot, turn)
    for finished in history.finished_turns:
        if (current := snapshot.turns.get(finished["id"])) != finished:
            yield Anomaly(Invariant.CHANGED, f"a turn was shown as {finished} and is now {current}")


def _response_is_stored(sent: SentMessage, snapshot: Snapshot, turn: Json) -> Iterator[Anomaly]:
    response = sent.response_json
    stored = snapshot.messages_of_turn(turn["id"], "assistant")
    if stored != [response["message"]]:
        yield Anomaly(Invariant.LOST, f"{sent}, but stored is {stored}")
    if [response["tool_calls"], response["usage"]] != [turn["tool_calls"], turn["usage"]]:
        yield Anomaly(Invariant.CHANGED, f"{sent}, but the turn is {turn}")


def _effects_happened_once(snapshot: Snapshot, history: History, model: ScriptedModel) -> Iterator[Anomaly]:
    """A tool call with a result has its effect, and no effect exists without such a call."""
    titles = snapshot.titles
    calls = [call for turn in snapshot.turns.values() for call in turn["tool_calls"]]
    in_transaction = [call for call in calls if call["name"] != "deliver"]
    successful = {call["result"]["id"]: call for call in in_transaction if _has_succeeded(call)}
    for title, count in titles.items():
        if count > 1:
            yield Anomaly(Invariant.DUPLICATED, f"{count} tasks or artifacts have the title {title!r}")
    stored = {entity["id"]: entity for entity in [*snapshot.tasks, *snapshot.artifacts]}
    for id, call in successful.items():
        if id not in stored or not call["result"].items() <= stored[id].items():
            yield Anomaly(Invariant.LOST, f"the effect of {call} is {stored.get(id)}")
    for id in stored.keys() - successful.keys():
        yield Anomaly(Invariant.PARTIALLY_WRITTEN, f"{stored[id]} has no tool call")


def _deliveries_happened_once(snapshot: Snapshot, history: History, model: ScriptedModel) -> Iterator[Anomaly]:
    """A call outside a transaction was made at most once, and was made if it has succeeded."""
    for turn in snapshot.turns.values():
        for call in (call for call in turn["tool_calls"] if call["name"] == "deliver"):
            count = model.deliveries[call["arguments"]["title"]]
            if count > 1:
                yield Anomaly(Invariant.DUPLICATED, f"{call} was made {count} times")
            if _has_succeeded(call) and not count:
                yield Anomaly(Invariant.LOST, f"{call} was not made")


def _has_succeeded(call: Json) -> bool:
    return call["result"] is not None and not call["is_error"]


def _conversations_are_complete(snapshot: Snapshot, history: History, model: ScriptedModel) -> Iterator[Anomaly]:
    """Messages have no gaps. Each turn has one user message, and one assistant message after it if it is completed."""
    for conversation_id, messages in snapshot.messages.items():
        if [message["seq"] for message in messages] != list(range(1, len(messages) + 1)):
            yield Anomaly(Invariant.PARTIALLY_WRITTEN, f"{conversation_id} has the messages {messages}")
        for before, after in pairwise(messages):
            if after["role"] == "assistant" and after["turn_id"] != before["turn_id"]:
                yield Anomaly(Invariant.PARTIALLY_WRITTEN, f"{after} follows {before}")
    for turn_id, turn in snapshot.turns.items():
        questions, answers = (len(snapshot.messages_of_turn(turn_id, role)) for role in ("user", "assistant"))
        if (questions, answers) != (1, int(turn["status"] == "completed")):
            yield Anomaly(Invariant.PARTIALLY_WRITTEN, f"{turn} has {questions} user and {answers} assistant messages")


def _no_turn_failed(snapshot: Snapshot, history: History, model: ScriptedModel) -> Iterator[Anomaly]:
    """A turn whose process was killed goes on. Nothing else goes wrong in these tests, so none may fail."""
    failed = [turn for turn in snapshot.turns.values() if turn["status"] == "failed"]
    yield from (Anomaly(Invariant.FAILED, f"{turn}") for turn in failed)


def _no_turn_runs(snapshot: Snapshot, history: History, model: ScriptedModel) -> Iterator[Anomaly]:
    """Every turn has finished."""
    for turn in snapshot.turns.values():
        if turn["status"] in UNFINISHED:
            yield Anomaly(Invariant.STUCK, f"{turn}")


def _model_received_recorded_results(snapshot: Snapshot, history: History, model: ScriptedModel) -> Iterator[Anomaly]:
    """Later attempts and turns sent the model each tool call with its recorded result, or that none is recorded."""
    for call in (call for turn in snapshot.turns.values() for call in turn["tool_calls"]):
        shown = model.shown_results.get(call["id"])
        if shown is not None and _result(shown) != call["result"]:
            yield Anomaly(Invariant.MODEL_REFUSED, f"the model received {shown!r} for {call}")


def _result(shown: str) -> Any:
    return None if shown == NO_RESULT else json.loads(shown)


CHECKS: tuple[Check, ...] = (
    _messages_are_stored_once,
    _outcomes_are_stable,
    _effects_happened_once,
    _deliveries_happened_once,
    *APPROVAL_CHECKS,
    received_events_are_stored,
    event_logs_are_complete,
    withdrawals_keep_finished_steps,
    attempts_are_counted,
    calls_are_made_once,
    former_tokens_end,
    _conversations_are_complete,
    _no_turn_failed,
    _no_turn_runs,
    _model_received_recorded_results,
)
