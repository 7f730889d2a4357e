"""Use cases of the process that runs a turn: renew the lease, append events to the log."""

from datetime import timedelta

from msgspec import Struct
from msgspec.structs import replace

from latchkey.application.access import owner_only
from latchkey.domain.errors import OffsetConflict
from latchkey.domain.ports import UnitOfWork
from latchkey.domain.tool_call import NO_RESULT, ToolCall, ToolCallId, ToolRequest
from latchkey.domain.turn import TurnId, Usage
from latchkey.domain.turn_event import EventData, MessageDeltaEvent, ToolCallStartedEvent, numbered
from latchkey.domain.turn_repositories import AnswerProgress


class EventBatch(Struct, frozen=True):
    """Events to append: `text`, which begins at character `offset` of the answer, then the tool request.

    `attempt` is the attempt of the turn that appends them.
    """

    offset: int
    text: str
    usage: Usage
    request: ToolRequest | None = None
    model: str | None = None
    attempt: int = 1


@owner_only("exclusive")
async def renew_turn(uow: UnitOfWork, turn_id: TurnId, lease: timedelta, attempt: int = 1) -> None:
    """Extend the lease of a running turn and the life of its token.

    Raises `Conflict` if the turn has ended, its lease has expired, or another attempt runs it.
    """
    until = uow.now + lease
    turn = await uow.turns.get(turn_id, for_update=True)
    turn.check_running(uow.now, attempt)
    await uow.context_tokens.extend_for_turn(turn_id, until, uow.now)
    await uow.turns.update(replace(turn, lease_until=until))


@owner_only("exclusive")
async def release_turn(uow: UnitOfWork, turn_id: TurnId, attempt: int) -> None:
    """End the lease and revoke the token of a running turn, so that another process continues it at once.

    Raises `Conflict` if the turn has ended, its lease has expired, or another attempt runs it.
    """
    turn = await uow.turns.get(turn_id, for_update=True)
    turn.check_running(uow.now, attempt)
    await uow.context_tokens.revoke_for_turn(turn_id, uow.now)
    await uow.turns.update(replace(turn, lease_until=turn.started_at))


@owner_only("write", stores=True)
async def append_events(uow: UnitOfWork, turn_id: TurnId, batch: EventBatch) -> None:
    """Append a batch to the event log of a running turn.

    Raises `OffsetConflict` if the log does not end at the batch's offset: an earlier attempt was committed and its
    confirmation was lost. Raises `Conflict` if the turn has ended, its lease has expired, or another attempt runs it.
    """
    events: list[EventData] = [MessageDeltaEvent(batch.text)] if batch.text else []
    if batch.request and (started := await _announce(uow, turn_id, batch.request)):
        events.append(started)
    progress = AnswerProgress(batch.offset, batch.offset + len(batch.text), batch.usage, batch.model, batch.attempt)
    first_seq = await uow.turns.record_progress(turn_id, uow.now, progress, len(events))
    if first_seq is None:
        turn = await uow.turns.get(turn_id)
        turn.check_running(uow.now, batch.attempt)
        raise OffsetConflict(turn.answer_length)
    await uow.turn_events.add(*numbered(turn_id, first_seq - 1, *events))


async def _announce(uow: UnitOfWork, turn_id: TurnId, request: ToolRequest) -> ToolCallStartedEvent | None:
    """Add the requested call without a result; None if the turn has a call with this id."""
    call = ToolCall(
        id=ToolCallId(uow.new_id()),
        name=request.name,
        arguments=request.arguments,
        result=NO_RESULT,
        is_error=True,
        started_at=uow.now,
        duration_ms=0,
    )
    was_added = await uow.tool_calls.add_if_absent(call, turn_id, request.call_id)
    return ToolCallStartedEvent(call.id, call.name, call.arguments) if was_added else None
