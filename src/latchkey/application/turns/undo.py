"""Undo of a turn: everything that its tool calls changed is reverted in one transaction, or nothing is."""

from msgspec.structs import replace

from latchkey.application.access import owner_only
from latchkey.application.turns.finish import PublishedTurn
from latchkey.domain.errors import Conflict
from latchkey.domain.ports import UnitOfWork
from latchkey.domain.turn import TurnId
from latchkey.domain.turn_event import TurnEvent, TurnUndoneEvent


@owner_only("exclusive")
async def undo_turn(uow: UnitOfWork, turn_id: TurnId) -> PublishedTurn:
    """Revert what the tool calls of an ended turn changed, newest first. A turn that was undone stays as it is.

    Raises `Conflict` for a turn that has not ended, and `NotUndoable` if there is nothing to undo, if an effect was
    changed since, and if one cannot be undone; `TurnLost` for a lost turn; and `NotFound`.
    """
    turn = await uow.turns.get(turn_id, for_update=True)
    turn.check_not_lost(uow.now)
    if turn.finished_at is None:
        raise Conflict("The turn has not ended: wait until it has, or cancel it first.", turn_id=turn_id)
    if turn.undone_at is None:
        effects = await uow.undo.revert(turn_id)
        turn = replace(turn, undone_at=uow.now, last_event=turn.last_event + 1)
        await uow.turn_events.add(TurnEvent.of(turn_id, turn.last_event, TurnUndoneEvent(effects)))
        await uow.turns.set_undone(turn)
    return PublishedTurn.of(turn, await uow.tool_calls.list_of_turn(turn_id))
