"""Use cases of whoever runs a turn: they keep it, and write down what it tells meanwhile."""

from datetime import timedelta

from msgspec import Struct
from msgspec.structs import replace

from latchkey.application.access import owner_only
from latchkey.domain.agent import ToolRequest
from latchkey.domain.errors import AlreadyTold
from latchkey.domain.ports import UnitOfWork
from latchkey.domain.repositories import Progress
from latchkey.domain.tool_call import NO_RESULT, ToolCall, ToolCallId
from latchkey.domain.turn import TurnId, Usage
from latchkey.domain.turn_event import CallStarted, Delta, Happening, numbered


class Telling(Struct, frozen=True):
    """What is to be written down: `text` comes after so many characters, and then a tool is asked for."""

    before: int
    text: str
    usage: Usage
    request: ToolRequest | None = None


@owner_only("serial")
async def renew_turn(work: UnitOfWork, turn_id: TurnId, lease: timedelta) -> None:
    """Keep a running turn and its token alive. Raises `Conflict` if the turn has ended or its lease has passed."""
    until = work.now + lease
    turn = await work.turns.get(turn_id, for_update=True)
    turn.check_running(work.now)
    await work.context_tokens.extend_turn(turn_id, until, work.now)
    await work.turns.replace(replace(turn, lease_until=until))


@owner_only("write")
async def record_telling(work: UnitOfWork, turn_id: TurnId, telling: Telling) -> None:
    """Add to a turn's events.

    Raises `AlreadyTold` if they have other text than expected, which happens when an earlier attempt was
    committed although nobody heard so; `Conflict` if the turn has ended or its lease has passed.
    """
    happened: list[Happening] = [Delta(telling.text)] if telling.text else []
    if telling.request and (started := await _announce(work, turn_id, telling.request)):
        happened.append(started)
    progress = Progress(telling.before, telling.before + len(telling.text), telling.usage)
    first = await work.turns.progress(turn_id, work.now, progress, len(happened))
    if first is None:
        turn = await work.turns.get(turn_id)
        turn.check_running(work.now)
        raise AlreadyTold(turn.told)
    await work.turn_events.add(*numbered(turn_id, first - 1, *happened))


async def _announce(work: UnitOfWork, turn_id: TurnId, request: ToolRequest) -> CallStarted | None:
    call = ToolCall(
        id=ToolCallId(work.new_id()),
        name=request.name,
        arguments=request.arguments,
        result=NO_RESULT,
        is_error=True,
        started_at=work.now,
        duration_ms=0,
    )
    is_new = await work.tool_calls.announce(call, turn_id, request.call_id)
    return CallStarted(call.id, call.name, call.arguments) if is_new else None
