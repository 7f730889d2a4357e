"""Use cases that read turns and their events."""

from msgspec import Struct

from latchkey.application.access import owner_only, requires
from latchkey.application.turns.finish import PublishedTurn
from latchkey.domain.conversation import ConversationId
from latchkey.domain.credentials import CONVERSATIONS_READ
from latchkey.domain.errors import NotFound
from latchkey.domain.page import Page, Window
from latchkey.domain.ports import UnitOfWork
from latchkey.domain.turn import TurnId
from latchkey.domain.turn_event import TurnEvent

PAGE_EVENTS = 32
EVENT_PAGE_BYTES = 64 * 1024


class EventPage(Struct, frozen=True):
    """The next events of a turn.

    `is_over` means that no events will follow, or only after the user's decision. `lease_s` is how many seconds the
    lease of an unfinished turn still lasts; it is None unless `events` is empty.
    """

    events: list[TurnEvent]
    is_over: bool
    has_more: bool = False
    lease_s: float | None = None


@requires(CONVERSATIONS_READ)
async def list_turns(uow: UnitOfWork, conversation_id: ConversationId, window: Window) -> Page[PublishedTurn]:
    """List the turns of a conversation, newest first. Raises `TurnLost`."""
    page = await uow.turns.page(conversation_id, window)
    if not page.items:
        await uow.conversations.get(conversation_id)
        return Page([], None)
    for item in page.items:
        item.turn.check_not_lost(uow.now)
    return Page([PublishedTurn.of(item.turn, item.calls) for item in page.items], page.next_cursor)


@requires(CONVERSATIONS_READ)
async def get_turn(uow: UnitOfWork, turn_id: TurnId) -> PublishedTurn:
    """Show one turn with its tool calls. Raises `TurnLost`."""
    turn = await uow.turns.get(turn_id)
    turn.check_not_lost(uow.now)
    return PublishedTurn.of(turn, await uow.tool_calls.list_of_turn(turn_id))


@requires(CONVERSATIONS_READ)
async def check_turn(uow: UnitOfWork, turn_id: TurnId) -> None:
    """Raises `NotFound` and `TurnLost`; reads no tool calls."""
    (await uow.turns.get(turn_id)).check_not_lost(uow.now)


@owner_only("read")
async def read_events(uow: UnitOfWork, turn_id: TurnId, after: int) -> EventPage:
    """Return the events of a turn after this number, one page of them. Raises `TurnLost`.

    Raises `NotFound` if the turn has ended and its last events are no longer stored.
    """
    events = await uow.turn_events.list_after(turn_id, after, PAGE_EVENTS, EVENT_PAGE_BYTES)
    if not events:
        turn = await uow.turns.get(turn_id)
        turn.check_not_lost(uow.now)
        if turn.status == "running" or (turn.status == "waiting" and not await _is_waiting_after(uow, turn_id, after)):
            return EventPage([], is_over=False, lease_s=(turn.lease_until - uow.now).total_seconds())
        if turn.last_event <= after:
            return EventPage([], is_over=True)
        # The turn may have ended between the two reads.
        events = await uow.turn_events.list_after(turn_id, after, PAGE_EVENTS, EVENT_PAGE_BYTES)
        if not events:
            raise NotFound.of("event")
    is_full = len(events) == PAGE_EVENTS or sum(len(event.body) for event in events) >= EVENT_PAGE_BYTES
    # An ended turn that was undone has one more event, and a waiting one goes on.
    is_over = (events[-1].is_of_ended_turn or events[-1].is_waiting) and not is_full
    return EventPage(events, is_over, has_more=is_full)


async def _is_waiting_after(uow: UnitOfWork, turn_id: TurnId, seq: int) -> bool:
    """Whether the turn waits for the user after this event: a stream that has sent it is over."""
    events = await uow.turn_events.list_after(turn_id, seq - 1, 1, EVENT_PAGE_BYTES)
    return bool(events) and events[0].is_waiting
