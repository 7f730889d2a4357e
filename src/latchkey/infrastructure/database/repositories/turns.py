"""Repository of turns, and the state of a turn that is read together with its token."""

from datetime import datetime
from typing import Any
from uuid import UUID

import msgspec
from msgspec import Struct
from msgspec.structs import replace
from sqlalchemy import and_, bindparam, exists, func, literal, select, true, update

from latchkey.domain.conversation import ConversationId
from latchkey.domain.errors import Conflict, NotFound, TooManyCalls
from latchkey.domain.page import Page, Window
from latchkey.domain.turn import ClientRequest, Idempotency, RunInput, Turn, TurnError, TurnId, TurnStatus, Usage
from latchkey.domain.turn_repositories import AnswerProgress, LockedTurn, TurnWithCalls, TurnWithMessage
from latchkey.infrastructure.database.repositories import turn_messages
from latchkey.infrastructure.database.repositories.conversations import name_as_id
from latchkey.infrastructure.database.repositories.deletion import (
    conversation_is_not_deleted,
    is_not_deleted,
)
from latchkey.infrastructure.database.repositories.tool_calls import (
    SMALL_CALLS_OF_TURN,
    SqlToolCalls,
    bounded_tool_call,
)
from latchkey.infrastructure.database.schema import conversations, messages, tool_calls, turns
from latchkey.infrastructure.database.sql.driver import Row
from latchkey.infrastructure.database.sql.session import (
    Session,
    columns_except,
    insert_for_user,
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


_NO_INPUT = RunInput()
_encode = msgspec.json.Encoder().encode
_decode_input = msgspec.json.Decoder(RunInput).decode
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
_MAX_ID = UUID(int=2**128 - 1)
_RUNNING = _SELECT.where(turns.c.status == literal("running", literal_execute=True))
_WAITING = _SELECT.where(turns.c.status == literal("waiting", literal_execute=True))
_WAITING_IN_CONVERSATION = _WAITING.where(turns.c.conversation_id == bindparam("conversation"))
_BY_IDEMPOTENCY_KEY = _SELECT.where(turns.c.idempotency_key == bindparam("idempotency_key"))
# Not by the id alone: SQLite would go through all turns of the user in the order of their ids.
_BY_RUN_ID = (
    _SELECT.where(turns.c.client_run_id == bindparam("run_id"))
    .order_by(turns.c.started_at.desc(), turns.c.id.desc())
    .limit(1)
)
_INSERT = insert_for_user(turns)
_UPDATE = update(turns).where(owned_by_user(turns), _HAS_ID)
_TURN_STATE = TURN_STATES.where(_HAS_ID).with_for_update(key_share=True)
_SET_CALL_COUNT = _UPDATE.values(effects=turns.c.effects.bitwise_or(bindparam("new_effects")))
# A statement of its own: a statement is prepared with the columns of its first use.
_SET_UNDONE = update(turns).where(owned_by_user(turns), _HAS_ID)
_SET_MESSAGES_UNDONE = update(messages).where(owned_by_user(messages), messages.c.turn_id == bindparam("turn"))
_RECORD_PROGRESS = (
    update(turns)
    .where(
        owned_by_user(turns),
        _HAS_ID,
        turns.c.status == "running",
        turns.c.lease_until > bindparam("now"),
        turns.c.attempt == bindparam("of_attempt"),
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

    async def page_with_messages(
        self, conversation: str, limit: int, before: TurnId | None = None, after: TurnId | None = None
    ) -> tuple[list[TurnWithMessage], bool]:
        params: dict[str, Any] = {"name": conversation, "key": name_as_id(conversation)}
        params |= {"before": before or _MAX_ID} if after is None else {"after": after}
        small, whole = turn_messages.NEWEST if after is None else turn_messages.OLDEST
        rows = await self._session.fetch(small, limit=limit + 1, **params)
        count, rows = len(rows), rows[:limit]
        if any(row[turn_messages.CONTENT] is None for row in rows):
            rows = await self._session.fetch(whole, limit=min(limit, turn_messages.LARGE_MESSAGES), **params)
        items = [turn_messages.turn_with_message(row) for row in rows]
        if items and not self._session.scope.includes(items[0].turn.conversation_id):
            raise NotFound.of("conversation")
        return items if after is not None else items[::-1], len(items) < count

    async def get_with_message(self, id: TurnId) -> TurnWithMessage:
        row = await self._session.fetch_row(turn_messages.BY_ID, key=id)
        item = None if row is None else turn_messages.turn_with_message(row)
        if item is None or not self._session.scope.includes(item.turn.conversation_id):
            raise NotFound.of("turn")
        return item

    async def find_by_message(self, conversation_id: ConversationId, message_id: str) -> TurnWithMessage | None:
        if not self._session.scope.includes(conversation_id):
            raise NotFound.of("conversation")
        row = await self._session.fetch_row(
            turn_messages.BY_MESSAGE, conversation=conversation_id, client_id=message_id, id=_uuid_or_none(message_id)
        )
        return None if row is None else turn_messages.turn_with_message(row)

    async def list_running(self) -> list[Turn]:
        return [_turn_from_row(row) for row in await self._session.fetch(_RUNNING)]

    async def list_waiting(self, conversation_id: ConversationId) -> list[Turn]:
        rows = await self._session.fetch(_WAITING_IN_CONVERSATION, conversation=conversation_id)
        return [_turn_from_row(row) for row in rows]

    async def update(self, turn: Turn) -> None:
        inside = self._session.scope.includes(turn.conversation_id)
        if not inside or not await self._session.execute(_UPDATE, key=turn.id, **_values(turn)):
            raise NotFound.of("turn")

    async def set_undone(self, turn: Turn) -> None:
        values = {"undone_at": turn.undone_at}
        await self._session.defer(_SET_UNDONE, key=turn.id, last_event=turn.last_event, **values)
        await self._session.defer(_SET_MESSAGES_UNDONE, turn=turn.id, **values)

    async def find_by_idempotency_key(self, key: str) -> Turn | None:
        row = await self._session.fetch_row(_BY_IDEMPOTENCY_KEY, idempotency_key=key)
        return None if row is None else _turn_from_row(row)

    async def find_by_run_id(self, run_id: str) -> Turn | None:
        row = await self._session.fetch_row(_BY_RUN_ID, run_id=run_id)
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
            of_attempt=progress.attempt,
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
        effects = self._session.effects
        await self._session.defer(_SET_CALL_COUNT, key=turn_state.id, last_event=last, calls=calls, new_effects=effects)
        self._turn_state = replace(turn_state, last_event=last, calls=calls)
        return first

    async def _state(self, id: TurnId) -> TurnState | None:
        """The state that was read with the turn's token; else the turn is locked and its state read."""
        if self._turn_state is None or self._turn_state.id != id:
            await self.lock(id)
        return self._turn_state


def _uuid_or_none(text: str) -> UUID | None:
    try:
        return UUID(text)
    except ValueError:
        return None


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
        replaced_by,
        run_id,
        attempt,
        recoveries,
        run_input,
        effects,
        undone_at,
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
        request=ClientRequest(request_id, Idempotency(key, fingerprint) if key else None, run_id=run_id),
        replaced_by=replaced_by,
        attempt=attempt,
        recoveries=recoveries,
        run_input=_decode_input(run_input) if run_input else _NO_INPUT,
        effects=effects,
        undone_at=undone_at,
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
        "replaced_by": turn.replaced_by,
        "client_run_id": turn.request.run_id,
        "attempt": turn.attempt,
        "recoveries": turn.recoveries,
        "run_input": _encode(turn.run_input).decode() if turn.run_input != _NO_INPUT else None,
    }
