"""Deletion of what may be large: it is hidden in one small unit of work, and removed in many."""

from collections.abc import Awaitable, Callable
from typing import Concatenate, ParamSpec

from latchkey.application.access import owner_only
from latchkey.application.dispatcher import Dispatcher
from latchkey.application.turns.finish import cancel_turn
from latchkey.domain.conversation import ConversationId
from latchkey.domain.credentials import Owner
from latchkey.domain.errors import NotFound
from latchkey.domain.ports import UnitOfWork

P = ParamSpec("P")

REMOVED_AT_ONCE = 100
"""How many turns, versions of artifacts, tokens or tasks one unit of work removes or changes."""


async def delete_and_remove(
    dispatcher: Dispatcher,
    owner: Owner,
    use_case: Callable[Concatenate[UnitOfWork, P], Awaitable[object]],
    *args: P.args,
    **kwargs: P.kwargs,
) -> None:
    """Run a use case that deletes, and remove all that the user has deleted.

    This also removes what a process has left that was stopped meanwhile, and it does so if there is nothing to delete:
    the client may have repeated its request. Raises `NotFound` then.
    """
    failure: NotFound | None = None
    try:
        await dispatcher.call(owner, use_case, *args, **kwargs)
    except NotFound as error:
        failure = error
    while await dispatcher.call(owner, remove_deleted):
        pass
    if failure is not None:
        raise failure


@owner_only("exclusive")
async def delete_conversation(uow: UnitOfWork, conversation_id: ConversationId) -> None:
    """Delete a conversation with its messages, turns, artifacts and context tokens. Its to-do tasks stay.

    From the commit on, nothing of it is found; running and waiting turns are cancelled. `remove_deleted` removes what
    is stored.
    """
    running = [turn for turn in await uow.turns.list_running() if turn.conversation_id == conversation_id]
    for turn in [*running, *await uow.turns.list_waiting(conversation_id)]:
        await cancel_turn(uow, turn.id)
    await uow.conversations.delete(conversation_id, uow.now)


@owner_only("exclusive")
async def remove_deleted(uow: UnitOfWork) -> bool:
    """Remove a part of what the user has deleted, and return whether more is left.

    Units of work of other users run in between, which one long transaction would delay.
    """
    return await uow.deletions.remove_part(REMOVED_AT_ONCE)
