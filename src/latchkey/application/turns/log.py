"""Use cases of front ends, which name conversations and read the events of their turns."""

from collections.abc import Sequence
from uuid import UUID

from msgspec import Struct

from latchkey.application.access import owner_only
from latchkey.application.turns.finish import cancel_turn
from latchkey.domain.conversation import ConversationId
from latchkey.domain.errors import Conflict, NotFound
from latchkey.domain.message import Message
from latchkey.domain.page import PAGE_BYTES
from latchkey.domain.ports import UnitOfWork
from latchkey.domain.turn import Turn, TurnId, TurnSummary
from latchkey.domain.turn_event import TurnEvent
from latchkey.domain.turn_repositories import TurnWithMessage


class TurnLog(Struct, frozen=True):
    """A turn with the user's message and its events.

    `message_id` is the client's own id of the message, else the id of the message. A running turn has no events here
    unless they were asked for: a subscription delivers all of them.
    """

    turn: TurnSummary
    message: Message
    message_id: str
    events: list[TurnEvent]

    @classmethod
    def of(cls, item: TurnWithMessage, events: list[TurnEvent]) -> "TurnLog":
        """Combine a stored turn with its events."""
        return cls(item.turn, item.message, item.client_id or str(item.message.id), events)


class ConversationLog(Struct, frozen=True):
    """Turns of a conversation that are not replaced, oldest first. `has_more` means that there are earlier turns.

    `conversation_id` is None if the name is unknown.
    """

    conversation_id: ConversationId | None
    turns: list[TurnLog]
    running_turn_id: TurnId | None = None
    has_more: bool = False


class ClientRun(Struct, frozen=True):
    """A turn that a client has named, in the conversation with this name."""

    turn_id: TurnId
    thread_id: str


@owner_only("read")
async def get_conversation_log(
    uow: UnitOfWork,
    name: str,
    limit: int,
    before: TurnId | None = None,
    after: TurnId | None = None,
    *,
    with_running: bool = False,
) -> ConversationLog:
    """Return the newest turns of the conversation with this name or id, or those before a turn. Raises `TurnLost`.

    With `after` they are the oldest turns after that one, and `has_more` means that there are later turns. There are
    at most `limit`, and fewer if their messages or events are large: of `PAGE_BYTES`, or one turn. `with_running` reads
    the events of a running turn, too.
    """
    items, has_more = await uow.turns.page_with_messages(name, limit, before, after)
    if not items:
        return ConversationLog(await uow.conversations.find_id(name), [])
    for item in items:
        item.turn.check_not_lost(uow.now)
    running = [item.turn.id for item in items if item.turn.status == "running"]
    read = [item.turn.id for item in items if with_running or item.turn.status != "running"]
    events = await uow.turn_events.list_of_turns(read, PAGE_BYTES, "desc" if after is None else "asc")
    if after is not None and events and len(events) < len(read):
        running = []  # it belongs to a later page
    included = [item for item in items if item.turn.id in events or item.turn.id in running]
    return ConversationLog(
        items[0].turn.conversation_id,
        [TurnLog.of(item, events.get(item.turn.id, [])) for item in included],
        running[0] if running else None,
        has_more=has_more or len(included) < len(items),
    )


@owner_only("read")
async def get_log_up_to(uow: UnitOfWork, turn_id: TurnId, seq: int, limit: int) -> ConversationLog:
    """Return a turn with its events up to this number, after the turns that precede it. Raises as the others do.

    There are at most `limit` earlier turns.
    """
    item = await uow.turns.get_with_message(turn_id)
    earlier = await get_conversation_log(uow, str(item.turn.conversation_id), limit, before=turn_id)
    events = (await uow.turn_events.list_of_turns([turn_id], PAGE_BYTES)).get(turn_id, [])
    log = TurnLog.of(item, [event for event in events if event.seq <= seq])
    return ConversationLog(item.turn.conversation_id, [*earlier.turns, log], has_more=earlier.has_more)


@owner_only("read")
async def get_turn_log(uow: UnitOfWork, turn_id: TurnId, *, with_running: bool = False) -> TurnLog:
    """Return one turn with its events. Raises `NotFound` and `TurnLost`."""
    item = await uow.turns.get_with_message(turn_id)
    item.turn.check_not_lost(uow.now)
    is_read = with_running or item.turn.status != "running"
    events = await uow.turn_events.list_of_turns([turn_id], PAGE_BYTES) if is_read else {}
    return TurnLog.of(item, events.get(turn_id, []))


@owner_only("read")
async def list_withdrawing_events(uow: UnitOfWork, turn_id: TurnId) -> list[TurnEvent]:
    """Return the events of a turn so far if they withdraw text, which a stream from the first event leaves out.

    Returns none for other turns. Raises `NotFound`.
    """
    if (await uow.turns.get(turn_id)).attempt == 1:
        return []
    events = (await uow.turn_events.list_of_turns([turn_id], PAGE_BYTES)).get(turn_id, [])
    return events if any(event.is_withdrawal for event in events) else []


@owner_only("read")
async def get_next_turn(uow: UnitOfWork, turn_id: TurnId) -> tuple[ConversationId, TurnId | None]:
    """Return the conversation of a turn, and the turn that follows it, if any.

    A message that continues from the turn replaces the turn that follows. Raises `NotFound`, and `Conflict` for a
    turn that is replaced itself.
    """
    turn = await uow.turns.get(turn_id)
    if turn.replaced_by is not None:
        raise Conflict("This turn has been replaced: continue from one that is still part of the conversation.")
    items, _ = await uow.turns.page_with_messages(str(turn.conversation_id), 1, after=turn_id)
    return turn.conversation_id, items[0].turn.id if items else None


@owner_only("read")
async def find_turn(uow: UnitOfWork, name: str, message_ids: Sequence[str]) -> TurnLog | None:
    """Return the turn of the first of these messages that the conversation has, without its events.

    A message is named by the client's id or by its own; the turn's id names the answer. Without ids it is the newest
    turn. Replaced turns are not returned.
    """
    if not message_ids:
        newest, _ = await uow.turns.page_with_messages(name, 1)
        return TurnLog.of(newest[0], []) if newest else None
    conversation_id = await uow.conversations.find_id(name)
    if conversation_id is None:
        return None
    for message_id in message_ids:
        if item := await uow.turns.find_by_message(conversation_id, message_id):
            return TurnLog.of(item, [])
    return None


@owner_only("read")
async def find_run(uow: UnitOfWork, run_id: str) -> ClientRun | None:
    """Return the newest turn to which the client has given this id, else the turn whose id it is. Raises `TurnLost`."""
    turn = await uow.turns.find_by_run_id(run_id) or await _turn_with_id(uow, run_id)
    if turn is None:
        return None
    turn.check_not_lost(uow.now)
    conversation = await uow.conversations.get(turn.conversation_id)
    return ClientRun(turn.id, conversation.client_conversation_id or str(conversation.id))


@owner_only("read")
async def find_running_turn(uow: UnitOfWork, name: str) -> TurnId | None:
    """Return the running turn of the conversation with this name or id. Raises `TurnLost`."""
    turn = await _unfinished_turn(uow, name)
    if turn is None:
        return None
    turn.check_not_lost(uow.now)
    return turn.id if turn.status == "running" else None


@owner_only("exclusive")
async def cancel_unfinished_turn(uow: UnitOfWork, name: str) -> TurnId | None:
    """Cancel the turn of the conversation with this name or id that is running or waits for the user.

    Returns it; None if there is none.
    """
    turn = await _unfinished_turn(uow, name)
    if turn is None:
        return None
    await cancel_turn(uow, turn.id)
    return turn.id


async def _unfinished_turn(uow: UnitOfWork, name: str) -> Turn | None:
    conversation_id = await uow.conversations.find_id(name)
    if conversation_id is None:
        return None
    running = [turn for turn in await uow.turns.list_running() if turn.conversation_id == conversation_id]
    return next(iter(running or await uow.turns.list_waiting(conversation_id)), None)


async def _turn_with_id(uow: UnitOfWork, id: str) -> Turn | None:
    try:
        return await uow.turns.get(TurnId(UUID(id)))
    except (ValueError, NotFound):
        return None
