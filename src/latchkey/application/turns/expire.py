"""Turns whose process is gone are stored as interrupted by whoever looks at them first."""

from collections.abc import Awaitable, Callable
from typing import Concatenate, ParamSpec, TypeVar

from latchkey.application.dispatcher import Dispatcher
from latchkey.application.turns.finish import expire_turns
from latchkey.domain.credentials import Owner
from latchkey.domain.errors import TurnLost
from latchkey.domain.ports import UnitOfWork

P = ParamSpec("P")
R = TypeVar("R")


async def with_expiry(
    dispatcher: Dispatcher,
    owner: Owner,
    look: Callable[Concatenate[UnitOfWork, P], Awaitable[R]],
    *args: P.args,
    **kwargs: P.kwargs,
) -> R:
    """What a use case shows, with every lost turn settled. Raises what the use case does, but for `TurnLost`."""
    try:
        return await dispatcher.call(owner, look, *args, **kwargs)
    except TurnLost:
        await dispatcher.call(owner, expire_turns)
        return await dispatcher.call(owner, look, *args, **kwargs)
