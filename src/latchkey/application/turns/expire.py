"""Recovery of lost turns: a turn whose lease has passed is continued when it is read or when a turn is started.

Its process has stopped or hangs. Any process continues it, or stores it as interrupted if it had its last attempt; no
background job is needed.
"""

from collections.abc import Awaitable, Callable
from typing import Concatenate, ParamSpec, TypeVar

from latchkey.application.access import owner_only
from latchkey.application.dispatcher import Dispatcher
from latchkey.application.turns.finish import close_as_interrupted
from latchkey.domain.credentials import Owner
from latchkey.domain.errors import TurnLost, Unavailable
from latchkey.domain.ports import UnitOfWork
from latchkey.domain.turn import Turn, TurnId

P = ParamSpec("P")
R = TypeVar("R")

_ATTEMPTS = 4
"""A turn can be lost once more before it is read: the process that continues it may be stopping."""


@owner_only("exclusive")
async def expire_turns(uow: UnitOfWork) -> None:
    """Store every turn of the user whose lease has expired as interrupted."""
    await expire_lost_turns(uow)


async def with_expiry(
    dispatcher: Dispatcher,
    owner: Owner,
    use_case: Callable[Concatenate[UnitOfWork, P], Awaitable[R]],
    *args: P.args,
    **kwargs: P.kwargs,
) -> R:
    """Run a use case that reads turns; if it raises `TurnLost`, recover the turn and run it again.

    Raises `Unavailable` if the turn is lost again and again, as with a lease that is shorter than a pause.
    """
    for _ in range(_ATTEMPTS):
        try:
            return await dispatcher.call(owner, use_case, *args, **kwargs)
        except TurnLost as lost:
            if dispatcher.recover is None:
                await dispatcher.call(owner, expire_turns)
            else:
                await dispatcher.recover(owner, TurnId(lost.id))
    raise Unavailable("The turn is being continued: try again.")


@owner_only("read")
async def list_lost_turns(uow: UnitOfWork) -> list[TurnId]:
    """Return the running turns of the user that are to be continued.

    A waiting turn is continued only when a request meets it: a user can have any number of them.
    """
    return [turn.id for turn in await uow.turns.list_running() if turn.is_lost(uow.now)]


async def expire_lost_turns(uow: UnitOfWork, attempts: int = 1) -> list[Turn]:
    """Store the user's lost turns as interrupted, and return the turns that are running.

    Raises `TurnLost` if one of them has had fewer than these attempts: it is to be continued.
    """
    turns = await uow.turns.list_running()
    for turn in turns:
        if turn.is_lost(uow.now):
            if turn.can_continue(attempts):
                turn.check_not_lost(uow.now)
            await expire_turn(uow, turn)
    return [turn for turn in turns if turn.is_running(uow.now)]


async def expire_turn(uow: UnitOfWork, turn: Turn) -> Turn:
    """Lock a lost turn, revoke its token and store it as interrupted.

    The lock reads the turn again: a process whose clock is behind may have written to it meanwhile.
    """
    turn = await uow.turns.get(turn.id, for_update=True)
    await uow.context_tokens.revoke_for_turn(turn.id, uow.now)
    return await close_as_interrupted(uow, turn)
