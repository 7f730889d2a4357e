"""Repositories of turns and their events, and the state of a turn that is read together with its token."""

from collections.abc import Callable
from datetime import datetime
from typing import Any

import msgspec
from msgspec import Raw, Struct
from msgspec.structs import replace
from sqlalchemy import and_, bindparam, case, exists, func, literal, select, true, update

from latchkey.domain.conversation import ConversationId
from latchkey.domain.errors import Conflict, NotFound, TooManyCalls
from latchkey.domain.page import Page, Window
from latchkey.domain.repositories import AnswerProgress, LockedTurn, TurnWithCalls
from latchkey.domain.turn import ClientRequest, Idempotency, Turn, TurnError, TurnId, TurnStatus, Usage
from latchkey.domain.turn_event import ToolCallCompletedEvent, ToolCallStartedEvent, TurnEvent
from latchkey.infrastructure.database.repositories.deletion import (
    conversation_is_not_deleted,
    is_not_deleted,
    turn_is_not_deleted,
)
from latchkey.infrastructure.database.repositories.tool_calls import (
    SMALL_CALLS_OF_TURN,
    SqlToolCalls,
    bounded_tool_call,
)
from latchkey.infrastructure.database.schema import conversations, tool_calls, turn_events, turns
from latchkey.infrastructure.database.sql.driver import Row
from latchkey.infrastructure.database.sql.session import (
    Session,
    columns_except,
    insert_for_user,
    octet_length,
    offsets,
    owned_by_user,
)


class TurnState(Struct, frozen=True):
    """The number of its newest event, the number of its tool calls, and whether some of them have no result yet."""

    id: TurnId
    status: TurnStatus
    lease_until: datetime
    last_event: int
    calls: int
    has_announced_calls: bool

    def is_running(self, now: datetime) -> bool:
        return self.status == "running" and now < self.lease_until


# The outer query pins `turns` too; the tenant guard checks each query by itself.
_HAS_ANNOUNCED_CALLS = exists().where(
    owned_by_user(tool_calls),
    owned_by_user(turns),
    tool_calls.c.turn_id == turns.c.id,
    tool_calls.c.result.is_(None),
)
TURN_STATES = select(
    turns.c.id,
    turns.c.status,
    turns.c.lease_until,
    turns.c.last_event,
    turns.c.calls,
    _HAS_ANNOUNCED_CALLS.label("has_announced_calls"),
).where(owned_by_user(turns))
TURN_STATE = TURN_STATES.subquery("turn_state")
"""For joins with a table that has a turn id."""


_encode = msgspec.json.Encoder().encode
_REFERRING: dict[str, tuple[Callable[[bytes | str], Any], str]] = {
    "tool_call.started": (msgspec.json.Decoder(ToolCallStartedEvent).decode, "arguments"),
    "tool_call.completed": (msgspec.json.Decoder(ToolCallCompletedEvent).decode, "result"),
}
"""Events that may refer to a recorded tool call for one of their fields."""
_LEFT_OUT = Raw(b"null")
_INSERT_EVENT = insert_for_user(turn_events)
_CANDIDATES = (
    select(turn_events.c.seq, func.coalesce(turn_events.c.size, octet_length(turn_events.c.body)).label("size"))
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
_TEXT_OF_CALL = (
    select(case((turn_events.c.name == "tool_call.started", tool_calls.c.arguments), else_=tool_calls.c.result))
    .where(
        owned_by_user(tool_calls),
        owned_by_user(turn_events),
        tool_calls.c.turn_id == turn_events.c.turn_id,
        tool_calls.c.id == turn_events.c.tool_call_id,
    )
    .correlate(turn_events)
    .scalar_subquery()
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

    async def list_after(self, turn_id: TurnId, seq: int, limit: int, size: int) -> list[TurnEvent]:
        rows = await self._session.fetch(_FIRST_EVENTS_WITHIN_SIZE, turn=turn_id, after=seq, limit=limit, bytes=size)
        return [TurnEvent(turn_id, seq, name, _whole_body(name, body, text)) for seq, name, body, text in rows]


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


_STORED = select(*columns_except(turns, "calls")).where(owned_by_user(turns))
_SELECT = _STORED.where(is_not_deleted(turns))
_HAS_ID = turns.c.id == bindparam("key")
_BY_ID = _SELECT.where(_HAS_ID)
_BY_ID_FOR_UPDATE = _BY_ID.with_for_update(key_share=True)
_NEWEST = (
    _STORED.where(
        turns.c.conversation_id == bindparam("conversation"), conversation_is_not_deleted(bindparam("conversation"))
    )
    .order_by(turns.c.id.desc())
    .limit(bindparam("limit"))
)
_NEWEST_BEFORE = _NEWEST.where(turns.c.id < bindparam("before"))
_RUNNING = _SELECT.where(turns.c.status == literal("running", literal_execute=True))
_BY_IDEMPOTENCY_KEY = _SELECT.where(turns.c.idempotency_key == bindparam("idempotency_key"))
_INSERT = insert_for_user(turns)
_UPDATE = update(turns).where(owned_by_user(turns), _HAS_ID)
_TURN_STATE = TURN_STATES.where(_HAS_ID).with_for_update(key_share=True)
_SET_CALL_COUNT = update(turns).where(owned_by_user(turns), _HAS_ID)
_RECORD_PROGRESS = (
    update(turns)
    .where(
        owned_by_user(turns),
        _HAS_ID,
        turns.c.status == "running",
        turns.c.lease_until > bindparam("now"),
        turns.c.answer_length == bindparam("offset"),
    )
    .values(
        last_event=turns.c.last_event + bindparam("count"),
        answer_length=bindparam("new_length"),
        requests=bindparam("used_requests"),
        input_tokens=bindparam("used_input"),
        output_tokens=bindparam("used_output"),
        model=func.coalesce(bindparam("used_model", type_=turns.c.model.type), turns.c.model),
    )
    .returning(turns.c.last_event)
)
_CALLS = SMALL_CALLS_OF_TURN.order_by(None).subquery("call")
_BY_ID_FOR_FINISH = (
    _STORED.add_columns(conversations.c.last_seq, *_CALLS.c)
    .join(
        conversations, and_(conversations.c.user_id == turns.c.user_id, conversations.c.id == turns.c.conversation_id)
    )
    .outerjoin(_CALLS, true())
    .where(owned_by_user(conversations), conversations.c.deleted_at.is_(None), _HAS_ID)
    .order_by(_CALLS.c.id)
    .with_for_update(key_share=True, of=(turns, conversations))
)
_TURN_WIDTH = len(_SELECT.selected_columns)


class _Cursor(Struct, frozen=True, array_like=True, forbid_unknown_fields=True, tag="turns"):
    """The last item of a page. The tag keeps cursors of different listings apart."""

    id: TurnId


class SqlTurns:
    """Turns, newest first."""

    def __init__(self, session: Session, turn_state: TurnState | None = None) -> None:
        self._session = session
        self._turn_state = turn_state

    async def add(self, turn: Turn) -> None:
        await self._session.defer(_INSERT, **_values(turn))

    async def get(self, id: TurnId, *, for_update: bool = False) -> Turn:
        row = await self._session.fetch_row(_BY_ID_FOR_UPDATE if for_update else _BY_ID, key=id)
        turn = None if row is None else _turn_from_row(row)
        if turn is None or not self._session.scope.includes(turn.conversation_id):
            raise NotFound.of("turn")
        return turn

    async def lock_for_finish(self, id: TurnId) -> LockedTurn:
        rows = await self._session.fetch(_BY_ID_FOR_FINISH, key=id, turn=id)
        turn = _turn_from_row(rows[0][:_TURN_WIDTH]) if rows else None
        if turn is None or not self._session.scope.includes(turn.conversation_id):
            raise NotFound.of("turn")
        calls = [bounded_tool_call(row[_TURN_WIDTH + 1 :]) for row in rows if row[_TURN_WIDTH + 1] is not None]
        calls = await SqlToolCalls(self._session).with_large(id, calls)
        return LockedTurn(turn, calls, rows[0][_TURN_WIDTH] + 1)

    async def page(self, conversation_id: ConversationId, window: Window) -> Page[TurnWithCalls]:
        if not self._session.scope.includes(conversation_id):
            raise NotFound.of("conversation")
        last = window.decode_cursor(_Cursor)
        params = {"conversation": conversation_id, "limit": window.limit + 1}
        rows = await (
            self._session.fetch(_NEWEST, **params)
            if last is None
            else self._session.fetch(_NEWEST_BEFORE, before=last.id, **params)
        )
        found = len(rows)
        calls, rows = await SqlToolCalls(self._session).list_for_page([row[0] for row in rows], rows, 0, "desc")
        return window.to_page(
            [TurnWithCalls(_turn_from_row(row), calls.get(row[0], [])) for row in rows],
            key=lambda item: _Cursor(item.turn.id),
            has_more=len(rows) < found,
        )

    async def list_running(self) -> list[Turn]:
        return [_turn_from_row(row) for row in await self._session.fetch(_RUNNING)]

    async def update(self, turn: Turn) -> None:
        inside = self._session.scope.includes(turn.conversation_id)
        if not inside or not await self._session.execute(_UPDATE, key=turn.id, **_values(turn)):
            raise NotFound.of("turn")

    async def find_by_idempotency_key(self, key: str) -> Turn | None:
        row = await self._session.fetch_row(_BY_IDEMPOTENCY_KEY, idempotency_key=key)
        return None if row is None else _turn_from_row(row)

    async def has_announced_calls(self, id: TurnId) -> bool:
        turn_state = await self._state(id)
        return turn_state is not None and turn_state.has_announced_calls

    async def lock(self, id: TurnId) -> None:
        row = await self._session.fetch_row(_TURN_STATE, key=id)
        self._turn_state = None if row is None else TurnState(*row)

    async def count_tool_call(self, id: TurnId, now: datetime, count: int, most: int) -> int:
        turn_state = await self._running_state(id, now)
        if turn_state.calls >= most:
            raise TooManyCalls(f"Limit of {most} tool calls per turn reached: answer without further calls.")
        return await self._advance(turn_state, count, calls=turn_state.calls + 1)

    async def take_event_numbers(self, id: TurnId, now: datetime, count: int) -> int:
        turn_state = await self._running_state(id, now)
        return await self._advance(turn_state, count, turn_state.calls)

    async def record_progress(self, id: TurnId, now: datetime, progress: AnswerProgress, count: int) -> int | None:
        row = await self._session.fetch_row(
            _RECORD_PROGRESS,
            key=id,
            now=now,
            count=count,
            offset=progress.offset,
            new_length=progress.new_length,
            used_requests=progress.usage.requests,
            used_input=progress.usage.input_tokens,
            used_output=progress.usage.output_tokens,
            used_model=progress.model,
        )
        return None if row is None else row[0] - count + 1

    async def _running_state(self, id: TurnId, now: datetime) -> TurnState:
        turn_state = await self._state(id)
        if turn_state is None or not turn_state.is_running(now):
            raise Conflict("The turn has ended.", turn_id=id)
        return turn_state

    async def _advance(self, turn_state: TurnState, count: int, calls: int) -> int:
        first, last = turn_state.last_event + 1, turn_state.last_event + count
        await self._session.defer(_SET_CALL_COUNT, key=turn_state.id, last_event=last, calls=calls)
        self._turn_state = replace(turn_state, last_event=last, calls=calls)
        return first

    async def _state(self, id: TurnId) -> TurnState | None:
        """The state that was read with the turn's token; else the turn is locked and its state read."""
        if self._turn_state is None or self._turn_state.id != id:
            await self.lock(id)
        return self._turn_state


def _turn_from_row(row: Row) -> Turn:
    id, conversation_id, status, agent, code, detail, requests, read, written, *rest = row
    (
        started_at,
        finished_at,
        lease_until,
        last_event,
        answer_length,
        retry_after,
        key,
        fingerprint,
        request_id,
        model,
        assistant,
        assistant_digest,
        metadata,
    ) = rest
    return Turn(
        id=id,
        conversation_id=conversation_id,
        status=status,
        agent=agent,
        assistant=assistant,
        assistant_digest=assistant_digest,
        metadata=msgspec.json.decode(metadata) if metadata else {},
        model=model,
        error=TurnError(code, detail, retry_after) if code else None,
        usage=Usage(requests, read, written),
        started_at=started_at,
        finished_at=finished_at,
        lease_until=lease_until,
        last_event=last_event,
        answer_length=answer_length,
        request=ClientRequest(request_id, Idempotency(key, fingerprint) if key else None),
    )


def _values(turn: Turn) -> dict[str, Any]:
    idempotency = turn.request.idempotency
    return {
        "id": turn.id,
        "conversation_id": turn.conversation_id,
        "status": turn.status,
        "agent": turn.agent,
        "error_code": turn.error and turn.error.code,
        "error_detail": turn.error and turn.error.detail,
        "requests": turn.usage.requests,
        "input_tokens": turn.usage.input_tokens,
        "output_tokens": turn.usage.output_tokens,
        "started_at": turn.started_at,
        "finished_at": turn.finished_at,
        "lease_until": turn.lease_until,
        "last_event": turn.last_event,
        "answer_length": turn.answer_length,
        "retry_after": turn.error and turn.error.retry_after,
        "idempotency_key": idempotency and idempotency.key,
        "fingerprint": idempotency and idempotency.fingerprint,
        "request_id": turn.request.id,
        "model": turn.model,
        "assistant": turn.assistant,
        "assistant_digest": turn.assistant_digest,
        "metadata": _encode(turn.metadata).decode() if turn.metadata else None,
    }
