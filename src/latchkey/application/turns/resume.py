"""Resumption of turns: any process continues a turn from what is stored, when the process that ran it is gone."""

from datetime import datetime, timedelta

from msgspec.structs import replace

from latchkey.application.access import owner_only
from latchkey.application.turns.finish import close_as_interrupted
from latchkey.application.turns.start import AcceptanceLimits, StartedTurn, TurnProfiles, mint_token
from latchkey.application.turns.waiting import (
    add_waiting_events,
    completed_event,
    decline_open,
    failure_result,
    is_call_running,
)
from latchkey.domain.agent import PastStep
from latchkey.domain.approval import Question
from latchkey.domain.errors import NoResult
from latchkey.domain.page import ALL_BYTES
from latchkey.domain.ports import UnitOfWork
from latchkey.domain.tool_call import ToolCall, ToolCallId
from latchkey.domain.turn import Turn, TurnId
from latchkey.domain.turn_event import (
    EventData,
    MessageDeltaEvent,
    MessageWithdrawnEvent,
    ResumeReason,
    ToolCallStartedEvent,
    TurnEvent,
    TurnResumedEvent,
    numbered,
    without_withdrawn,
)

_NO_RESULT = failure_result(
    NoResult("No result recorded: the service was interrupted during this call, which may have had its effect.")
)
_NO_EFFECT = failure_result(
    NoResult("Nothing was done: the service was interrupted before this call. Make it again if it is still needed.")
)


@owner_only("exclusive")
async def resume_turn(
    uow: UnitOfWork, turn_id: TurnId, profiles: TurnProfiles, limits: AcceptanceLimits
) -> StartedTurn | None:
    """Continue a turn whose process is gone: its next attempt, with a token of its own.

    The text of a step that broke off is withdrawn. A call without a result is not made again. Returns None for a turn
    that has ended, that a process runs, or that had its last attempt: then it is stored as interrupted. Raises
    `NotFound`.
    """
    turn = await uow.turns.get(turn_id, for_update=True)
    if not turn.is_lost(uow.now):
        return None
    if turn.status == "running":
        questions = await uow.questions.list_of_turn(turn.id)
        if _has_to_wait(questions, uow.now):
            await _wait(uow, turn, questions, limits.lease)
            return None
    await uow.context_tokens.revoke_for_turn(turn.id, uow.now)
    profile = profiles.of_turn(turn)
    if profile is None or profile.agent is None or not turn.can_continue(limits.attempts):
        await close_as_interrupted(uow, turn)
        return None
    item = await uow.turns.get_with_message(turn.id)
    decided = await decline_open(uow, turn, "expiry")
    calls = await uow.tool_calls.list_of_turn(turn.id)
    log = (await uow.turn_events.list_of_turns([turn.id], ALL_BYTES)).get(turn.id, [])
    closed = await _close_lost(uow, turn, calls)
    steps = past_steps(log, {call.id: call for call in [*calls, *closed]})
    events = [*decided, *map(completed_event, closed)]
    turn = await _next_attempt(uow, turn, events, sum(len(step.text) for step in steps), limits)
    turns = profile.history_turns or limits.history_turns
    history = await uow.messages.history(turn.conversation_id, turns, limits.history_chars, item.message.seq)
    secret, scope = await mint_token(uow, turn, profile)
    return StartedTurn(turn, item.message.content, history, secret, scope, profile, steps)


async def _next_attempt(
    uow: UnitOfWork,
    turn: Turn,
    events: list[EventData],
    answer_length: int,
    limits: AcceptanceLimits,
) -> Turn:
    """Store the next attempt of the turn, with these events and its own."""
    if answer_length < turn.answer_length:
        events.append(MessageWithdrawnEvent(answer_length))
    reason = _reason(turn)
    events.append(TurnResumedEvent(turn.attempt + 1, reason))
    await uow.turn_events.add(*numbered(turn.id, turn.last_event, *events))
    resumed = replace(
        turn,
        status="running",
        attempt=turn.attempt + 1,
        recoveries=turn.recoveries + (reason == "recovery"),
        answer_length=answer_length,
        last_event=turn.last_event + len(events),
        lease_until=uow.now + limits.lease,
    )
    await uow.turns.update(resumed)
    return resumed


def _reason(turn: Turn) -> ResumeReason:
    if turn.status == "waiting":
        return "approval"
    return "handover" if turn.is_released else "recovery"


def _has_to_wait(questions: list[Question], now: datetime) -> bool:
    """Whether a question can be decided, or an approved call may still run in another process."""
    return any(question.can_be_decided(now) for question in questions) or is_call_running(questions)


async def _wait(uow: UnitOfWork, turn: Turn, questions: list[Question], lease: timedelta) -> None:
    """Let a turn wait whose process died after it had asked the user, and before it had ended the step.

    The process that runs an approved call renews the lease; if that one has died as well, the turn goes on after it.
    """
    await uow.context_tokens.revoke_for_turn(turn.id, uow.now)
    in_question = {question.call.id for question in questions}
    calls = [call for call in await uow.tool_calls.list_of_turn(turn.id) if call.id not in in_question]
    events: list[EventData] = [*map(completed_event, await _close_lost(uow, turn, calls))]
    await add_waiting_events(uow, replace(turn, status="waiting"), events, lease)


async def _close_lost(uow: UnitOfWork, turn: Turn, calls: list[ToolCall]) -> list[ToolCall]:
    """Store that these calls have no result, if they have none, and return them."""
    lost = [call for call in calls if not call.has_result]
    started = await uow.tool_calls.list_started(turn.id) if lost else []
    closed = [replace(call, result=_NO_RESULT if call.id in started else _NO_EFFECT, is_error=True) for call in lost]
    for call in closed:
        await uow.tool_calls.close(turn.id, call)
    return closed


def past_steps(events: list[TurnEvent], calls: dict[ToolCallId, ToolCall]) -> list[PastStep]:
    """Return the steps of a turn that have tool calls. Text after the last call is of a step that broke off."""
    steps: list[PastStep] = []
    text = ""
    for event in without_withdrawn(events):
        match event.decode():
            case MessageDeltaEvent(delta):
                text += delta
            case ToolCallStartedEvent(id=id) if text or not steps:
                steps.append(PastStep(text, [calls[id]]))
                text = ""
            case ToolCallStartedEvent(id=id):
                steps[-1].tool_calls.append(calls[id])
    return steps
