"""Turns that wait for the user: how a turn begins to wait, and how its open questions are declined."""

from datetime import timedelta

from msgspec import Raw
from msgspec.structs import replace

from latchkey.application.tool_calls import created_artifacts
from latchkey.domain.approval import DecidedBy, Decision, Question
from latchkey.domain.errors import Declined, Failure
from latchkey.domain.ports import UnitOfWork
from latchkey.domain.tool_call import ToolCall, failed_outcome
from latchkey.domain.turn import Turn
from latchkey.domain.turn_event import (
    ApprovalDecidedEvent,
    EventData,
    ToolCallCompletedEvent,
    TurnWaitingEvent,
    numbered,
)

_DETAILS: dict[DecidedBy, str] = {
    "user": "Nothing was done: the user declined this call.",
    "expiry": "Nothing was done: the user did not approve this call in time.",
    "message": "Nothing was done: the user sent another message instead of approving this call.",
    "cancel": "Nothing was done: the turn ended before the user approved this call.",
}


def _decline_result(decision: Decision) -> Raw:
    """Return the result of a call that is declined, as the model is shown it."""
    detail = _DETAILS[decision.by]
    if decision.reason:
        detail += f" Their reason: {decision.reason}"
    return failure_result(Declined(detail))


def failure_result(failure: Failure) -> Raw:
    """Return the result of a call that failed."""
    return Raw(failed_outcome(failure).json)


async def store_decision(
    uow: UnitOfWork, turn: Turn, question: Question, decision: Decision
) -> tuple[Question, list[EventData]]:
    """Store a decision on an open question, a decline together with its result.

    Returns the decided question and the events. The caller has locked the turn.
    """
    call = question.call
    await uow.questions.decide(turn.id, call.id, decision, uow.now)
    events: list[EventData] = [ApprovalDecidedEvent(call.id, decision.name, decision.reason, decision.by)]
    if decision.name == "decline":
        call = replace(call, result=_decline_result(decision), is_error=True)
        await uow.tool_calls.close(turn.id, call)
        events.append(completed_event(call))
    decided = replace(
        question, call=call, decision=decision.name, reason=decision.reason, by=decision.by, decided_at=uow.now
    )
    return decided, events


async def store_result(uow: UnitOfWork, turn: Turn, call: ToolCall) -> list[EventData]:
    """Store the result of an approved call, and return the events; none if it has a result already."""
    if not await uow.tool_calls.complete(turn.id, call):
        return []
    return [completed_event(call), *created_artifacts([call])]


async def decline_open(uow: UnitOfWork, turn: Turn, by: DecidedBy) -> list[EventData]:
    """Decline the open questions of a turn that the caller has locked, and return the events."""
    questions = await uow.questions.list_of_turn(turn.id)
    events: list[EventData] = []
    for question in questions:
        if question.is_open:
            _, declined = await store_decision(uow, turn, question, Decision("decline", by))
            events += declined
    return events


async def add_waiting_events(
    uow: UnitOfWork, turn: Turn, events: list[EventData], lease: timedelta | None = None
) -> Turn:
    """Append these events to a turn that has questions, and store until when it waits.

    It waits until its last open question expires. If none can be decided, it is to be continued: at once, or when the
    calls that were approved and still run have ended. Their process renews the turn's lease meanwhile; without
    `lease`, the turn keeps the one that it has. The caller has locked the turn.
    """
    if turn.status == "waiting":
        questions = await uow.questions.list_of_turn(turn.id)
        waits_until = [question.expires_at for question in questions if question.is_open]
        if waits_until:
            events.append(TurnWaitingEvent())
        if is_call_running(questions):
            waits_until.append(turn.lease_until if lease is None else uow.now + lease)
        turn = replace(turn, lease_until=max(waits_until, default=uow.now))
    new_events = numbered(turn.id, turn.last_event, *events)
    await uow.turn_events.add(*new_events)
    turn = replace(turn, last_event=turn.last_event + len(new_events))
    await uow.turns.update(turn)
    return turn


def is_call_running(questions: list[Question]) -> bool:
    """Whether an approved call has no result yet."""
    return any(not question.is_open and not question.call.has_result for question in questions)


def completed_event(call: ToolCall) -> ToolCallCompletedEvent:
    """Return the event of a result."""
    return ToolCallCompletedEvent(call.id, call.name, call.result, call.is_error, call.duration_ms)
