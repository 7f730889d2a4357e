"""Use cases on turns: look at them, and at what happened in them."""

from msgspec import Struct

from latchkey.application.access import owner_only, requires
from latchkey.application.turns.results import PublishedTurn
from latchkey.domain.conversation import ConversationId
from latchkey.domain.credentials import Grant
from latchkey.domain.page import Page, Window
from latchkey.domain.ports import UnitOfWork
from latchkey.domain.turn import TurnId
from latchkey.domain.turn_event import TurnEvent

EVENTS_A_TIME = 32
CHARACTERS_A_TIME = 64 * 1024


class TurnLog(Struct, frozen=True):
    """The next events of a turn; `is_over` if none will follow. That there are no more holds for `holds_s` at least."""

    events: list[TurnEvent]
    is_over: bool
    has_more: bool = False
    holds_s: float | None = None


@requires(Grant.CONVERSATIONS_READ)
async def list_turns(uow: UnitOfWork, conversation_id: ConversationId, window: Window) -> Page[PublishedTurn]:
    """List the turns of a conversation, newest first. Raises `TurnLost`."""
    page = await uow.turns.page(conversation_id, window)
    if not page.items:
        await uow.conversations.get(conversation_id)
        return Page([], None)
    calls = await uow.tool_calls.of_turns([turn.id for turn in page.items])
    turns = [PublishedTurn.of(turn.as_it_is(uow.now), calls.get(turn.id, [])) for turn in page.items]
    return Page(turns, page.next_cursor)


@requires(Grant.CONVERSATIONS_READ)
async def get_turn(uow: UnitOfWork, turn_id: TurnId) -> PublishedTurn:
    """Show one turn with its tool calls. Raises `TurnLost`."""
    turn = (await uow.turns.get(turn_id)).as_it_is(uow.now)
    return PublishedTurn.of(turn, (await uow.tool_calls.of_turns([turn_id])).get(turn_id, []))


@owner_only("read")
async def read_log(uow: UnitOfWork, turn_id: TurnId, after: int) -> TurnLog:
    """The events of a turn that follow one, a few at a time. Raises `TurnLost`."""
    events = await uow.turn_events.after(turn_id, after, EVENTS_A_TIME, CHARACTERS_A_TIME)
    if events:
        is_full = len(events) == EVENTS_A_TIME or sum(len(event.body) for event in events) >= CHARACTERS_A_TIME
        return TurnLog(events, events[-1].is_last, has_more=is_full)
    turn = (await uow.turns.get(turn_id)).as_it_is(uow.now)
    lease_s = (turn.lease_until - uow.now).total_seconds()
    return TurnLog([], turn.status != "running" and turn.last_event <= after, holds_s=lease_s)
