"""How a turn goes on when the process that ran it is gone: from what is stored, in any process."""

import msgspec
from msgspec import Raw
from msgspec.structs import replace

from latchkey.application.access import owner_only
from latchkey.application.turns.finish import close_as_interrupted
from latchkey.application.turns.start import AcceptanceLimits, StartedTurn, TurnProfiles, mint_token
from latchkey.domain.agent import PastStep
from latchkey.domain.ports import UnitOfWork
from latchkey.domain.tool_call import ToolCall, ToolCallId
from latchkey.domain.turn import Turn, TurnId
from latchkey.domain.turn_event import (
    EventData,
    MessageDeltaEvent,
    MessageWithdrawnEvent,
    ToolCallCompletedEvent,
    ToolCallStartedEvent,
    TurnEvent,
    TurnResumedEvent,
    numbered,
)

_ALL_BYTES = 2**31 - 1
_NO_RESULT = Raw(
    msgspec.json.encode(
        {"code": "no-result", "detail": "No result recorded: the service was interrupted during this call."}
    )
)


@owner_only("exclusive")
async def resume_turn(
    uow: UnitOfWork, turn_id: TurnId, profiles: TurnProfiles, limits: AcceptanceLimits
) -> StartedTurn | None:
    """Continue a turn whose process is gone: its next attempt, with a token of its own.

    The text of a step that broke off is withdrawn. A call without a result is not made again. Returns None for a turn
    that has ended, that a process runs, or that had its last attempt: then it is stored as interrupted.
    """
    turn = await uow.turns.get(turn_id, for_update=True)
    if not turn.is_lost(uow.now):
        return None
    await uow.context_tokens.revoke_for_turn(turn.id, uow.now)
    profile = profiles.of_turn(turn)
    if profile is None or not turn.can_continue(limits.attempts):
        await close_as_interrupted(uow, turn)
        return None
    item = await uow.turns.get_with_message(turn.id)
    calls = await uow.tool_calls.list_of_turn(turn.id)
    log = (await uow.turn_events.list_of_turns([turn.id], _ALL_BYTES)).get(turn.id, [])
    closed = [replace(call, result=_NO_RESULT, is_error=True) for call in calls if not call.has_result]
    for call in closed:
        await uow.tool_calls.close(turn.id, call)
    steps = past_steps(log, {call.id: call for call in [*calls, *closed]})
    turn = await _next_attempt(uow, turn, closed, sum(len(step.text) for step in steps), limits)
    turns = profile.history_turns or limits.history_turns
    history = await uow.messages.history(turn.conversation_id, turns, limits.history_chars, item.message.seq)
    secret, scope = await mint_token(uow, turn, profile)
    return StartedTurn(turn, item.message.content, history, secret, scope, profile, steps)


async def _next_attempt(
    uow: UnitOfWork,
    turn: Turn,
    closed: list[ToolCall],
    answer_length: int,
    limits: AcceptanceLimits,
) -> Turn:
    """Store the next attempt of the turn, with its events."""
    events: list[EventData] = [
        ToolCallCompletedEvent(call.id, call.name, call.result, call.is_error, call.duration_ms) for call in closed
    ]
    if answer_length < turn.answer_length:
        events.append(MessageWithdrawnEvent(answer_length))
    events.append(TurnResumedEvent(turn.attempt + 1, "handover" if turn.is_released else "recovery"))
    await uow.turn_events.add(*numbered(turn.id, turn.last_event, *events))
    resumed = replace(
        turn,
        attempt=turn.attempt + 1,
        recoveries=turn.recoveries + (not turn.is_released),
        answer_length=answer_length,
        last_event=turn.last_event + len(events),
        lease_until=uow.now + limits.lease,
    )
    await uow.turns.update(resumed)
    return resumed


def past_steps(events: list[TurnEvent], calls: dict[ToolCallId, ToolCall]) -> list[PastStep]:
    """Return the steps of a turn that have tool calls. Text after the last call is of a step that broke off."""
    steps: list[PastStep] = []
    text = ""
    for event in events:
        match event.decode():
            case MessageDeltaEvent(delta):
                text += delta
            case MessageWithdrawnEvent(length):
                text = text[: max(0, length - sum(len(step.text) for step in steps))]
            case ToolCallStartedEvent(id=id) if text or not steps:
                steps.append(PastStep(text, [calls[id]]))
                text = ""
            case ToolCallStartedEvent(id=id):
                steps[-1].tool_calls.append(calls[id])
    return steps
