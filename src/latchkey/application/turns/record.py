"""Use cases of whoever runs a turn: they keep it, and write down what it tells meanwhile."""

from datetime import timedelta

from msgspec import Struct
from msgspec.structs import replace

from latchkey.application.access import owner_only
from latchkey.domain.agent import ToolRequest
from latchkey.domain.errors import OffsetConflict
from latchkey.domain.ports import UnitOfWork
from latchkey.domain.repositories import AnswerProgress
from latchkey.domain.tool_call import NO_RESULT, ToolCall, ToolCallId
from latchkey.domain.turn import TurnId, Usage
from latchkey.domain.turn_event import EventData, MessageDeltaEvent, ToolCallStartedEvent, numbered


class EventBatch(Struct, frozen=True):
    """What is to be written down: `text` comes after so many characters, and then a tool is asked for."""

    offset: int
    text: str
    usage: Usage
    request: ToolRequest | None = None


@owner_only("exclusive")
async def renew_turn(uow: UnitOfWork, turn_id: TurnId, lease: timedelta) -> None:
    """Keep a running turn and its token alive. Raises `Conflict` if the turn has ended or its lease has passed."""
    until = uow.now + lease
    turn = await uow.turns.get(turn_id, for_update=True)
    turn.check_running(uow.now)
    await uow.context_tokens.extend_for_turn(turn_id, until, uow.now)
    await uow.turns.update(replace(turn, lease_until=until))


@owner_only("write")
async def append_events(uow: UnitOfWork, turn_id: TurnId, batch: EventBatch) -> None:
    """Add to a turn's events.

    Raises `OffsetConflict` if they have other text than expected, which happens when an earlier attempt was
    committed although nobody heard so; `Conflict` if the turn has ended or its lease has passed.
    """
    happened: list[EventData] = [MessageDeltaEvent(batch.text)] if batch.text else []
    if batch.request and (started := await _announce(uow, turn_id, batch.request)):
        happened.append(started)
    progress = AnswerProgress(batch.offset, batch.offset + len(batch.text), batch.usage)
    first = await uow.turns.record_progress(turn_id, uow.now, progress, len(happened))
    if first is None:
        turn = await uow.turns.get(turn_id)
        turn.check_running(uow.now)
        raise OffsetConflict(turn.answer_length)
    await uow.turn_events.add(*numbered(turn_id, first - 1, *happened))


async def _announce(uow: UnitOfWork, turn_id: TurnId, request: ToolRequest) -> ToolCallStartedEvent | None:
    call = ToolCall(
        id=ToolCallId(uow.new_id()),
        name=request.name,
        arguments=request.arguments,
        result=NO_RESULT,
        is_error=True,
        started_at=uow.now,
        duration_ms=0,
    )
    is_new = await uow.tool_calls.announce(call, turn_id, request.call_id)
    return ToolCallStartedEvent(call.id, call.name, call.arguments) if is_new else None
