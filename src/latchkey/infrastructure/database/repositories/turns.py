"""Turns in SQL."""

from datetime import datetime
from typing import Any

from msgspec import Struct
from msgspec.structs import replace
from sqlalchemy import and_, bindparam, literal, select, true, update

from latchkey.domain.conversation import ConversationId
from latchkey.domain.errors import Conflict, NotFound, TooManyCalls
from latchkey.domain.page import Page, Window
from latchkey.domain.repositories import AnswerProgress, LockedTurn
from latchkey.domain.turn import Idempotency, Turn, TurnError, TurnId, Usage
from latchkey.infrastructure.database.repositories.tool_calls import CALLS_OF_TURN, call_of
from latchkey.infrastructure.database.repositories.turn_state import TURN_STATES, TurnState
from latchkey.infrastructure.database.schema import conversations, turns
from latchkey.infrastructure.database.sql.driver import Row
from latchkey.infrastructure.database.sql.session import Session, columns_except, insert_for_user, owned_by_user

_ALL = select(*columns_except(turns, "calls")).where(owned_by_user(turns))
_KEY = turns.c.id == bindparam("key")
_ONE = _ALL.where(_KEY)
_ONE_FOR_UPDATE = _ONE.with_for_update(key_share=True)
_NEWEST = (
    _ALL.where(turns.c.conversation_id == bindparam("conversation"))
    .order_by(turns.c.id.desc())
    .limit(bindparam("limit"))
)
_OLDER = _NEWEST.where(turns.c.id < bindparam("before"))
_UNFINISHED = _ALL.where(turns.c.status == literal("running", literal_execute=True))
_OF_KEY = _ALL.where(turns.c.idempotency_key == bindparam("idempotency_key"))
_ADD = insert_for_user(turns)
_REPLACE = update(turns).where(owned_by_user(turns), _KEY)
_TURN_STATE = TURN_STATES.where(_KEY).with_for_update(key_share=True)
_COUNT_CALL = update(turns).where(owned_by_user(turns), _KEY)
_PROGRESS = (
    update(turns)
    .where(
        owned_by_user(turns),
        _KEY,
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
    )
    .returning(turns.c.last_event)
)
_CALLS = CALLS_OF_TURN.subquery("call")
_CLOSING = (
    _ALL.add_columns(conversations.c.last_seq, *_CALLS.c)
    .join(
        conversations, and_(conversations.c.user_id == turns.c.user_id, conversations.c.id == turns.c.conversation_id)
    )
    .outerjoin(_CALLS, true())
    .where(owned_by_user(conversations), _KEY)
    .order_by(_CALLS.c.id)
    .with_for_update(key_share=True, of=(turns, conversations))
)
_WIDTH = len(_ALL.selected_columns)


class _Last(Struct, frozen=True, array_like=True, forbid_unknown_fields=True, tag="turns"):
    """The last item of a page, as its cursor names it; the tag tells it from the cursors of other listings."""

    id: TurnId


class SqlTurns:
    """Newest first."""

    def __init__(self, session: Session, turn_state: TurnState | None = None) -> None:
        self._session = session
        self._turn_state = turn_state

    async def add(self, turn: Turn) -> None:
        await self._session.defer(_ADD, **_values(turn))

    async def get(self, id: TurnId, *, for_update: bool = False) -> Turn:
        row = await self._session.fetch_row(_ONE_FOR_UPDATE if for_update else _ONE, key=id)
        turn = None if row is None else _turn(row)
        if turn is None or not self._session.scope.includes(turn.conversation_id):
            raise NotFound.of("turn")
        return turn

    async def lock_for_finish(self, id: TurnId) -> LockedTurn:
        rows = await self._session.fetch(_CLOSING, key=id, turn=id)
        turn = _turn(rows[0][:_WIDTH]) if rows else None
        if turn is None or not self._session.scope.includes(turn.conversation_id):
            raise NotFound.of("turn")
        calls = [call_of(row[_WIDTH + 1 :]) for row in rows if row[_WIDTH + 1] is not None]
        return LockedTurn(turn, calls, rows[0][_WIDTH] + 1)

    async def page(self, conversation_id: ConversationId, window: Window) -> Page[Turn]:
        if not self._session.scope.includes(conversation_id):
            raise NotFound.of("conversation")
        last = window.decode_cursor(_Last)
        asked = {"conversation": conversation_id, "limit": window.limit + 1}
        rows = await (
            self._session.fetch(_NEWEST, **asked)
            if last is None
            else self._session.fetch(_OLDER, before=last.id, **asked)
        )
        return window.to_page([_turn(row) for row in rows], key=lambda turn: _Last(turn.id))

    async def list_running(self) -> list[Turn]:
        return [_turn(row) for row in await self._session.fetch(_UNFINISHED)]

    async def update(self, turn: Turn) -> None:
        inside = self._session.scope.includes(turn.conversation_id)
        if not inside or not await self._session.execute(_REPLACE, key=turn.id, **_values(turn)):
            raise NotFound.of("turn")

    async def find_by_idempotency_key(self, key: str) -> Turn | None:
        row = await self._session.fetch_row(_OF_KEY, idempotency_key=key)
        return None if row is None else _turn(row)

    async def has_announced_calls(self, id: TurnId) -> bool:
        turn_state = await self._state(id)
        return turn_state is not None and turn_state.has_announced_calls

    async def lock(self, id: TurnId) -> None:
        row = await self._session.fetch_row(_TURN_STATE, key=id)
        self._turn_state = None if row is None else TurnState(*row)

    async def count_tool_call(self, id: TurnId, now: datetime, count: int, most: int) -> int:
        turn_state = await self._state(id)
        if turn_state is None or not turn_state.is_running(now):
            raise Conflict("The turn has ended.", turn_id=id)
        if turn_state.calls >= most:
            raise TooManyCalls(f"The turn has called {most} tools, which is the limit: answer now.")
        first, last, calls = turn_state.last_event + 1, turn_state.last_event + count, turn_state.calls + 1
        await self._session.defer(_COUNT_CALL, key=id, last_event=last, calls=calls)
        self._turn_state = replace(turn_state, last_event=last, calls=calls)
        return first

    async def record_progress(self, id: TurnId, now: datetime, progress: AnswerProgress, count: int) -> int | None:
        row = await self._session.fetch_row(
            _PROGRESS,
            key=id,
            now=now,
            count=count,
            offset=progress.offset,
            new_length=progress.new_length,
            used_requests=progress.usage.requests,
            used_input=progress.usage.input_tokens,
            used_output=progress.usage.output_tokens,
        )
        return None if row is None else row[0] - count + 1

    async def _state(self, id: TurnId) -> TurnState | None:
        """The state that was read with the turn's token; else the turn is locked and its state read."""
        if self._turn_state is None or self._turn_state.id != id:
            await self.lock(id)
        return self._turn_state


def _turn(row: Row) -> Turn:
    id, conversation_id, status, agent, code, detail, requests, read, written, *rest = row
    started_at, finished_at, lease_until, last_event, answer_length, retry_after, key, fingerprint, request_id = rest
    return Turn(
        id=id,
        conversation_id=conversation_id,
        status=status,
        agent=agent,
        error=TurnError(code, detail, retry_after) if code else None,
        usage=Usage(requests, read, written),
        started_at=started_at,
        finished_at=finished_at,
        lease_until=lease_until,
        last_event=last_event,
        answer_length=answer_length,
        idempotency=Idempotency(key, fingerprint, request_id) if key else None,
    )


def _values(turn: Turn) -> dict[str, Any]:
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
        "idempotency_key": turn.idempotency and turn.idempotency.key,
        "fingerprint": turn.idempotency and turn.idempotency.fingerprint,
        "request_id": turn.idempotency and turn.idempotency.request_id,
    }
