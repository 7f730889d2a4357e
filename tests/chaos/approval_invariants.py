"""The invariants of approvals: each question is decided once, and nothing happens without the decision."""

from collections.abc import Callable, Iterator
from itertools import pairwise

from tests.chaos.app import asks
from tests.chaos.history import Anomaly, History, Invariant, Json, TurnEvent
from tests.chaos.scripted_model import ScriptedModel
from tests.chaos.snapshot import Snapshot

Check = Callable[[Snapshot, History, ScriptedModel], Iterator[Anomaly]]

WHILE_WAITING = {"approval.decided", "tool_call.completed", "artifact.created", "turn.waiting", "message.withdrawn"}
"""The events between `turn.waiting` and the next attempt or the end of the turn."""


def _questions_are_decided_once(snapshot: Snapshot, history: History, model: ScriptedModel) -> Iterator[Anomaly]:
    """A call that must be approved is asked about after its start, and decided once before its result."""
    for turn in snapshot.turns.values():
        events = snapshot.events[turn["id"]]
        decided = [event.data["id"] for event in events if event.name == "approval.decided"]
        requested = [event.data["id"] for event in events if event.name == "approval.requested"]
        if sorted(decided) != sorted(requested) or len(set(requested)) != len(requested):
            yield Anomaly(Invariant.STUCK, f"{turn} asks about {requested} and has decisions on {decided}")
        for call in turn["tool_calls"]:
            yield from _call_follows_decision(turn, call, events)


def _call_follows_decision(turn: Json, call: Json, events: list[TurnEvent]) -> Iterator[Anomaly]:
    own = [event for event in events if event.data.get("id") == call["id"] and event.name != "artifact.created"]
    names = [event.name for event in own]
    by_name = {event.name: event.data for event in own}
    if "approval.requested" not in by_name:
        if _must_ask(call) and call["result"] is not None and call["result"].get("code") != "no-result":
            yield Anomaly(Invariant.UNAPPROVED, f"{call} of {turn} was not asked about")
        return
    order = ["tool_call.started", "approval.requested", "approval.decided", "tool_call.completed"]
    if names != order[: len(names)]:
        yield Anomaly(Invariant.PARTIALLY_WRITTEN, f"{call} of {turn} has the events {names}")
    shown = by_name["approval.requested"]
    if (shown["name"], shown["arguments"]) != (call["name"], call["arguments"]):
        yield Anomaly(Invariant.CHANGED, f"{call} was shown as {shown}")
    decision = by_name.get("approval.decided", {}).get("decision")
    has_run = call["result"] is not None and call["result"].get("code") != "declined"
    if decision == "decline" and has_run:
        yield Anomaly(Invariant.UNAPPROVED, f"{call} was declined and made")
    if decision == "approve" and call["result"] is not None and not has_run:
        yield Anomaly(Invariant.LOST, f"{call} was approved and declined")
    if decision == "approve" and call["result"] is None and turn["status"] == "completed":
        yield Anomaly(Invariant.LOST, f"{call} was approved and has no result")


def _must_ask(call: Json) -> bool:
    """Whether the app of the replicas says so."""
    if call["name"] == "request_task":
        return asks(call["arguments"]["title"])
    return call["name"] in {"deliver", "save_artifact"}


def _decisions_are_kept(snapshot: Snapshot, history: History, model: ScriptedModel) -> Iterator[Anomaly]:
    """A decision that was answered stays, with its result. A refused one was made otherwise."""
    stored = {
        event.data["id"]: event.data["decision"]
        for events in snapshot.events.values()
        for event in events
        if event.name == "approval.decided"
    }
    calls = {call["id"]: call for turn in snapshot.turns.values() for call in turn["tool_calls"]}
    for decided in history.decided:
        if stored.get(decided["id"]) != decided["decision"]:
            yield Anomaly(Invariant.CHANGED, f"{decided} is now {stored.get(decided['id'])}")
        if decided["result"] is not None and decided["result"] != calls.get(decided["id"], {}).get("result"):
            yield Anomaly(Invariant.CHANGED, f"{decided} is now {calls.get(decided['id'])}")
    for call_id, decision in history.refused:
        if stored.get(call_id) == decision and (call_id, decision) not in _by_others(snapshot):
            yield Anomaly(Invariant.CHANGED, f"the decision {decision} on {call_id} was refused and is stored")


def _by_others(snapshot: Snapshot) -> set[tuple[str, str]]:
    """The decisions that no user made: those of an expiry, a further message or a cancellation."""
    return {
        (event.data["id"], event.data["decision"])
        for events in snapshot.events.values()
        for event in events
        if event.name == "approval.decided" and event.data["by"] != "user"
    }


def _questions_are_shown_as_they_are(snapshot: Snapshot, history: History, model: ScriptedModel) -> Iterator[Anomaly]:
    """Every question in the list of open approvals is that of a stored call, with the same arguments."""
    calls = {call["id"]: call for turn in snapshot.turns.values() for call in turn["tool_calls"]}
    for approval in history.approvals:
        call = calls.get(approval["id"], {})
        if [call.get("name"), call.get("arguments")] != [approval["name"], approval["arguments"]]:
            yield Anomaly(Invariant.CHANGED, f"{approval} is now {call}")


def _waiting_turns_do_nothing(snapshot: Snapshot, history: History, model: ScriptedModel) -> Iterator[Anomaly]:
    """After `turn.waiting` there are only decisions and results, until the turn is resumed or ends."""
    for turn_id, events in snapshot.events.items():
        is_waiting = False
        for event, following in pairwise(events):
            is_waiting = (is_waiting or event.name == "turn.waiting") and event.name != "turn.resumed"
            is_next = following.name in WHILE_WAITING or following.final_status or following.name == "turn.resumed"
            if is_waiting and not is_next:
                yield Anomaly(Invariant.PARTIALLY_WRITTEN, f"{turn_id} waits and has {following.raw!r}")


APPROVAL_CHECKS: tuple[Check, ...] = (
    _questions_are_decided_once,
    _decisions_are_kept,
    _questions_are_shown_as_they_are,
    _waiting_turns_do_nothing,
)
