"""Responses that have ended, and the items of a conversation, page by page: messages of both sides, and tool calls."""

import sys
from collections.abc import Awaitable, Callable
from typing import Any
from uuid import UUID

from msgspec.structs import replace

from latchkey.application.turns.log import ConversationLog, TurnLog
from latchkey.domain.errors import NotFound
from latchkey.domain.turn import TurnId
from latchkey.domain.turn_event import TurnEvent
from latchkey.domain.turn_repositories import Order
from latchkey.interfaces.http.frontends.openai.ids import FIRST_PART, WHOLE_TURN, ResponsePart, uuid_in_item_id
from latchkey.interfaces.http.frontends.openai.items import Item
from latchkey.interfaces.http.frontends.openai.objects import list_object, user_item
from latchkey.interfaces.http.frontends.openai.translator import ResponseTranslator

ReadLog = Callable[..., Awaitable[ConversationLog]]
"""Returns the log of the conversation with at most this many turns, before or after a turn."""

_FIRST_ID = TurnId(UUID(int=0))
_MAX_INT = 2**128 - 1


def new_translator(log: TurnLog, part: ResponsePart, after: int = -1) -> ResponseTranslator:
    """Return the translator of a stream. Raises `NotFound` if no response of the turn is this part."""
    if part.start and not _begins_with_decision(log.events, part):
        raise NotFound.of("response")
    return ResponseTranslator(log.turn, after, part, log.events)


def translated(log: TurnLog, part: ResponsePart) -> ResponseTranslator:
    """Translate all events of the log. Raises `NotFound` if no response of the turn is this part."""
    translator = new_translator(log, part, sys.maxsize)
    for event in log.events:
        translator.translate(event)
    return translator


def response_of(log: TurnLog, part: ResponsePart = FIRST_PART) -> dict[str, Any]:
    """Return the response as it is after all events of the log. One that is not over has no output yet."""
    return translated(log, part).response


async def read_items(read_log: ReadLog, order: Order, limit: int, after: str | None) -> dict[str, Any]:
    """Return one page of items, those after the item with this id. Raises `NotFound` for an unknown id."""
    items: list[Item] = []
    position: TurnId | None = _FIRST_ID if order == "asc" else None
    if after is not None:
        turn = await _turn_with_item(read_log, after)
        items, position = _items_after(after, _items_of(turn, order)), turn.turn.id
    has_more = True
    while len(items) <= limit and has_more:
        # A turn with an answer has at least two items.
        turns = limit // 2 + 1
        log = await read_log(turns, after=position) if order == "asc" else await read_log(turns, before=position)
        for turn in log.turns if order == "asc" else reversed(log.turns):
            items += _items_of(turn, order)
            position = turn.turn.id
        has_more = log.has_more and bool(log.turns)
    return list_object(items[:limit], has_more=len(items) > limit)


async def _turn_with_item(read_log: ReadLog, item_id: str) -> TurnLog:
    """Return the turn that has the item. Ids grow with time, and the id of a turn is older than those of its items."""
    id = uuid_in_item_id(item_id)
    log = await read_log(1, before=TurnId(UUID(int=min(id.int + 1, _MAX_INT))))
    if not log.turns:
        raise NotFound.of("item")
    return log.turns[0]


def _items_of(turn: TurnLog, order: Order) -> list[Item]:
    """Return the items of a turn. Those of the answer are added where it waits for the user, and when it has ended."""
    ends = [place for place, event in enumerate(turn.events, 1) if event.is_waiting or event.is_last]
    events = turn.events[: ends[-1]] if ends else []
    items = [user_item(turn), *translated(replace(turn, events=events), WHOLE_TURN).items]
    return items if order == "asc" else items[::-1]


def _begins_with_decision(events: list[TurnEvent], part: ResponsePart) -> bool:
    """Whether the first event of the part and its event `last` are decisions of the user."""
    numbers = {event.seq for event in events if event.decided_call}
    return {part.start + 1, part.last} <= numbers


def _items_after(id: str, items: list[Item]) -> list[Item]:
    ids = [item["id"] for item in items]
    if id not in ids:
        raise NotFound.of("item")
    return items[ids.index(id) + 1 :]
