"""Repository of the events of turns."""

from collections.abc import Callable
from functools import cache
from typing import Any
from uuid import UUID

import msgspec
from msgspec import Raw
from msgspec.structs import replace
from sqlalchemy import (
    ColumnElement,
    ScalarSelect,
    Select,
    String,
    Text,
    and_,
    bindparam,
    case,
    cast,
    func,
    literal,
    select,
    type_coerce,
)

from latchkey.domain.turn import TurnId
from latchkey.domain.turn_event import (
    MAX_SHOWN_BYTES,
    OMISSION,
    OMISSION_END,
    ToolCallCompletedEvent,
    ToolCallStartedEvent,
    TurnEvent,
)
from latchkey.domain.turn_repositories import Order
from latchkey.infrastructure.database.repositories.deletion import turn_is_not_deleted
from latchkey.infrastructure.database.repositories.tool_calls import (
    SMALL_BYTES,
    turn_ids_as_parameters,
    turn_parameters,
)
from latchkey.infrastructure.database.schema import tool_calls, turn_events
from latchkey.infrastructure.database.sql.driver import Row
from latchkey.infrastructure.database.sql.session import (
    Session,
    insert_for_user,
    octet_length,
    offsets,
    owned_by_user,
)

_encode = msgspec.json.Encoder().encode
_REFERRING: dict[str, tuple[Callable[[bytes | str], Any], str]] = {
    "tool_call.started": (msgspec.json.Decoder(ToolCallStartedEvent).decode, "arguments"),
    "tool_call.completed": (msgspec.json.Decoder(ToolCallCompletedEvent).decode, "result"),
}
"""Events that may refer to a recorded tool call for one of their fields."""
_LEFT_OUT = Raw(b"null")
_INSERT_EVENT = insert_for_user(turn_events)
_SIZE = func.coalesce(turn_events.c.size, octet_length(turn_events.c.body))
_CANDIDATES = (
    select(turn_events.c.seq, _SIZE.label("size"))
    .where(
        owned_by_user(turn_events),
        turn_events.c.turn_id == bindparam("turn"),
        turn_events.c.seq > bindparam("after"),
        turn_is_not_deleted(bindparam("turn")),
    )
    .order_by(turn_events.c.seq)
    .limit(bindparam("limit"))
    .subquery()
)
_SIZED = offsets(_CANDIDATES, "seq")
_IS_START = turn_events.c.name == "tool_call.started"
_BYTES_OF_CALL = case(
    (_IS_START, func.coalesce(tool_calls.c.arguments_size, octet_length(tool_calls.c.arguments))),
    else_=func.coalesce(tool_calls.c.result_size, octet_length(tool_calls.c.result)),
)


def _of_call(text: ColumnElement[Any]) -> ScalarSelect[Any]:
    """Return the query of a text of the tool call that an event refers to."""
    return (
        select(text)
        .where(
            owned_by_user(tool_calls),
            owned_by_user(turn_events),
            tool_calls.c.turn_id == turn_events.c.turn_id,
            tool_calls.c.id == turn_events.c.tool_call_id,
        )
        .correlate(turn_events)
        .scalar_subquery()
    )


_TEXT_OF_CALL = _of_call(case((_IS_START, tool_calls.c.arguments), else_=tool_calls.c.result))
_SHOWN_TEXT_OF_CALL = _of_call(
    case(
        (
            _BYTES_OF_CALL > MAX_SHOWN_BYTES,
            literal(OMISSION.decode()) + cast(_BYTES_OF_CALL, Text) + literal(OMISSION_END.decode()),
        ),
        (_IS_START, tool_calls.c.arguments),
        else_=tool_calls.c.result,
    )
)
_FIRST_EVENTS_WITHIN_SIZE = (
    select(
        turn_events.c.seq,
        turn_events.c.name,
        turn_events.c.body,
        case((turn_events.c.tool_call_id.is_not(None), _TEXT_OF_CALL)).label("text"),
    )
    .select_from(_SIZED.join(turn_events, turn_events.c.seq == _SIZED.c.of_key))
    .where(owned_by_user(turn_events), turn_events.c.turn_id == bindparam("turn"), _SIZED.c.before < bindparam("bytes"))
    .order_by(turn_events.c.seq)
)


@cache
def _small_events_of_turns(count: int) -> Select[*tuple[Any, ...]]:
    """Return the query of up to `_MAX_SMALL_EVENTS` events, and one more, in which larger bodies are NULL."""
    is_small = _SIZE <= SMALL_BYTES
    return (
        select(
            # Not converted: on SQLite that takes longer than all else.
            type_coerce(turn_events.c.turn_id, String()),
            turn_events.c.seq,
            turn_events.c.name,
            case((is_small, turn_events.c.body)).label("body"),
            case((and_(is_small, turn_events.c.tool_call_id.is_not(None)), _TEXT_OF_CALL)).label("text"),
            is_small,
            _SIZE,
        )
        .where(owned_by_user(turn_events), turn_events.c.turn_id.in_(turn_parameters(count)))
        .order_by(turn_events.c.turn_id, turn_events.c.seq)
        .limit(_MAX_SMALL_EVENTS + 1)
    )


@cache
def _events_of_turns(count: int, order: Order) -> Select[*tuple[Any, ...]]:
    events = (
        select(turn_events.c.turn_id, turn_events.c.seq, _SIZE.label("size"))
        .where(owned_by_user(turn_events), turn_events.c.turn_id.in_(turn_parameters(count)))
        .subquery()
    )
    in_order = events.c.turn_id.desc() if order == "desc" else events.c.turn_id
    sized = select(
        events.c.turn_id,
        events.c.seq,
        # Events of one turn are peers: this is the sum up to the end of the turn.
        func.sum(events.c.size).over(order_by=in_order).label("through_turn"),
        func.sum(events.c.size).over(partition_by=events.c.turn_id).label("of_whole_turn"),
    ).subquery()
    is_same = and_(sized.c.turn_id == turn_events.c.turn_id, sized.c.seq == turn_events.c.seq)
    return (
        select(
            turn_events.c.turn_id,
            turn_events.c.seq,
            turn_events.c.name,
            turn_events.c.body,
            case((turn_events.c.tool_call_id.is_not(None), _SHOWN_TEXT_OF_CALL)).label("text"),
        )
        .select_from(sized.join(turn_events, is_same))
        .where(owned_by_user(turn_events), sized.c.through_turn - sized.c.of_whole_turn < bindparam("bytes"))
        .order_by(turn_events.c.turn_id, turn_events.c.seq)
    )


_MAX_SMALL_EVENTS = 512
"""Up to this many events, all of them small, are read without sums of sizes: almost all pages are like that."""
_MAX_COPIED_BYTES = 1024
"""A larger event of a tool call refers to the call, which is stored in the same transaction, for its large field."""


class SqlTurnEvents:
    """Events in the order of `seq`. Added events are also appended to `added`, for the event bus."""

    def __init__(self, session: Session, added: list[TurnEvent]) -> None:
        self._session = session
        self._added = added

    async def add(self, *events: TurnEvent) -> None:
        is_recorded = any(event.name == "tool_call.completed" for event in events)
        for event in events:
            await self._session.defer(_INSERT_EVENT, **_event_values(event, is_recorded=is_recorded))
        self._added += events

    async def list_of_turns(self, ids: list[TurnId], size: int, order: Order = "desc") -> dict[TurnId, list[TurnEvent]]:
        if not ids:
            return {}
        params = turn_ids_as_parameters(ids)
        rows = await self._session.fetch(_small_events_of_turns(len(params)), **params)
        if not _are_small(rows, size):
            rows = await self._session.fetch(_events_of_turns(len(params), order), bytes=size, **params)
        turn_ids: dict[UUID | str, TurnId] = {form: id for id in ids for form in (id, id.hex)}
        events: dict[TurnId, list[TurnEvent]] = {}
        for stored_id, seq, name, body, text, *_ in rows:
            turn_id = turn_ids[stored_id]
            events.setdefault(turn_id, []).append(TurnEvent(turn_id, seq, name, _whole_body(name, body, text)))
        return events

    async def list_after(self, turn_id: TurnId, seq: int, limit: int, size: int) -> list[TurnEvent]:
        rows = await self._session.fetch(_FIRST_EVENTS_WITHIN_SIZE, turn=turn_id, after=seq, limit=limit, bytes=size)
        return [TurnEvent(turn_id, seq, name, _whole_body(name, body, text)) for seq, name, body, text in rows]


def _are_small(rows: list[Row], size: int) -> bool:
    """Whether these rows are all events, each with its body, within this many bytes in total."""
    return len(rows) <= _MAX_SMALL_EVENTS and all(row[-2] for row in rows) and sum(row[-1] for row in rows) <= size


def _event_values(event: TurnEvent, *, is_recorded: bool) -> dict[str, Any]:
    body, tool_call_id, size = event.body, None, len(event.body)
    if size > _MAX_COPIED_BYTES and is_recorded and (referring := _REFERRING.get(event.name)):
        decode, field = referring
        data = decode(body)
        body, tool_call_id = _encode(replace(data, **{field: _LEFT_OUT})), data.id
    return {
        "turn_id": event.turn_id,
        "seq": event.seq,
        "name": event.name,
        "body": body.decode(),
        "tool_call_id": tool_call_id,
        "size": size,
    }


def _whole_body(name: str, body: str, text: str | None) -> bytes:
    """Return the body as it was published: the encoder writes equal data as equal bytes."""
    if text is None:
        return body.encode()
    decode, field = _REFERRING[name]
    return _encode(replace(decode(body), **{field: Raw(text.encode())}))
