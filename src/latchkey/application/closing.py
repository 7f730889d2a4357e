"""How a turn is stored as ended: one way, whoever ends it."""

from typing import Any

from msgspec.structs import replace

from latchkey.domain import turn_event
from latchkey.domain.ports import UnitOfWork
from latchkey.domain.turn import Turn
from latchkey.domain.turn_event import Happening, numbered


async def close_turn(work: UnitOfWork, turn: Turn, *happened: Happening, **changes: Any) -> Turn:
    """Store the changes that end a turn, with its last events. The caller holds it, and revokes its token."""
    events = numbered(turn.id, turn.last_event, *happened)
    await work.turn_events.add(*events)
    ended = replace(turn, last_event=events[-1].seq, **{"finished_at": work.now, **changes})
    await work.turns.replace(ended)
    return ended


async def settle(work: UnitOfWork) -> list[Turn]:
    """The turns that are running; those whose lease has passed are stored as interrupted."""
    unfinished = await work.turns.unfinished()
    for turn in unfinished:
        if turn.is_lost(work.now):
            await interrupt_turn(work, turn)
    return [turn for turn in unfinished if turn.is_running(work.now)]


async def interrupt_turn(work: UnitOfWork, turn: Turn) -> Turn:
    """Store a turn as interrupted whose lease has passed, with its token revoked, as it is now.

    A process whose clock is behind may hold both for alive.
    """
    turn = await work.turns.get(turn.id, for_update=True)
    await work.context_tokens.revoke_turn(turn.id, work.now)
    return await close_turn(work, turn, turn_event.Interrupted(), status="interrupted", finished_at=turn.lease_until)
