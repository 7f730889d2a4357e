"""Repository of questions to the user about tool calls."""

from datetime import datetime
from itertools import accumulate
from uuid import UUID

from msgspec import Raw, Struct
from sqlalchemy import bindparam, select, update
from sqlalchemy.dialects import postgresql

from latchkey.domain.approval import Approval, Decision, Question
from latchkey.domain.page import PAGE_BYTES, Page, Window
from latchkey.domain.tool_call import StartedCall, ToolCall, ToolCallId
from latchkey.domain.turn import TurnId
from latchkey.infrastructure.database.repositories.deletion import is_not_deleted
from latchkey.infrastructure.database.repositories.tool_calls import (
    CALL_COLUMNS,
    HAS_ID,
    IS_ANNOUNCED,
    IS_OPEN,
    OF_TURN,
    call_values,
    tool_call_from_row,
)
from latchkey.infrastructure.database.schema import tool_calls, turns
from latchkey.infrastructure.database.sql.driver import Row
from latchkey.infrastructure.database.sql.session import Session, owned_by_user
from latchkey.infrastructure.database.sql.tenant_guard import USER

_INSERT_IF_ABSENT = postgresql.insert(tool_calls).values(user_id=bindparam(USER)).on_conflict_do_nothing()
_ASK_ANNOUNCED = update(tool_calls).where(*IS_ANNOUNCED).returning(tool_calls.c.id)
_DECIDE = update(tool_calls).where(*HAS_ID, IS_OPEN)
_QUESTION = [
    tool_calls.c[name] for name in ("approval_expires_at", "decision", "decision_reason", "decided_by", "decided_at")
]
_QUESTIONS_OF_TURN = (
    select(*CALL_COLUMNS, *_QUESTION)
    .where(*OF_TURN, tool_calls.c.approval_expires_at.is_not(None))
    .order_by(tool_calls.c.id)
)
_IS_IN_PAGE = (
    owned_by_user(tool_calls),
    IS_OPEN,
    tool_calls.c.approval_expires_at > bindparam("now"),
    tool_calls.c.id > bindparam("after"),
)
_SIZES = (
    select(tool_calls.c.id, tool_calls.c.arguments_size)
    .where(*_IS_IN_PAGE)
    .order_by(tool_calls.c.id)
    .limit(bindparam("limit"))
)
_PAGE = (
    select(
        tool_calls.c.id,
        tool_calls.c.turn_id,
        turns.c.conversation_id,
        tool_calls.c.name,
        tool_calls.c.arguments,
        tool_calls.c.started_at,
        tool_calls.c.approval_expires_at,
    )
    .join(turns, (turns.c.user_id == tool_calls.c.user_id) & (turns.c.id == tool_calls.c.turn_id))
    .where(*_IS_IN_PAGE, owned_by_user(turns), is_not_deleted(turns), tool_calls.c.id <= bindparam("through"))
    .order_by(tool_calls.c.id)
)
_BEFORE_ALL = UUID(int=0)
_CALL_WIDTH = len(CALL_COLUMNS)


class _Cursor(Struct, frozen=True, array_like=True, forbid_unknown_fields=True, tag="approvals"):
    """The last item of a page. The tag keeps cursors of different listings apart."""

    id: ToolCallId


class SqlQuestions:
    """Questions, oldest first."""

    def __init__(self, session: Session) -> None:
        self._session = session

    async def add(
        self, call: ToolCall, turn_id: TurnId, call_id: str | None, expires_at: datetime
    ) -> StartedCall | None:
        values = {**call_values(call), "approval_expires_at": expires_at}
        added = await self._session.execute(_INSERT_IF_ABSENT, turn_id=turn_id, id=call.id, call_id=call_id, **values)
        if added:
            return StartedCall(call.id, was_announced=False)
        row = await self._session.fetch_row(_ASK_ANNOUNCED, turn=turn_id, known_as=call_id, **values)
        return None if row is None else StartedCall(row[0], was_announced=True)

    async def list_of_turn(self, turn_id: TurnId) -> list[Question]:
        rows = await self._session.fetch(_QUESTIONS_OF_TURN, turn=turn_id)
        return [Question(tool_call_from_row(row[:_CALL_WIDTH]), *row[_CALL_WIDTH:]) for row in rows]

    async def decide(self, turn_id: TurnId, id: ToolCallId, decision: Decision, now: datetime) -> bool:
        values = {
            "decision": decision.name,
            "decided_by": decision.by,
            "decision_reason": decision.reason,
            "decided_at": now,
            "executing_since": now if decision.name == "approve" else None,
        }
        return bool(await self._session.execute(_DECIDE, turn=turn_id, key=id, **values))

    async def page_of_open(self, now: datetime, window: Window) -> Page[Approval]:
        last = window.decode_cursor(_Cursor)
        params = {"now": now, "after": last.id if last else _BEFORE_ALL}
        sizes = await self._session.fetch(_SIZES, limit=window.limit + 1, **params)
        if not sizes:
            return Page([], None)
        sums = accumulate(size for _, size in sizes)
        count = next((index for index, total in enumerate(sums, 1) if total >= PAGE_BYTES), len(sizes))
        rows = await self._session.fetch(_PAGE, through=sizes[count - 1][0], **params)
        items = [_approval_from_row(row) for row in rows]
        return window.to_page(items, key=lambda item: _Cursor(item.id), has_more=count < len(sizes))


def _approval_from_row(row: Row) -> Approval:
    id, turn_id, conversation_id, name, arguments, requested_at, expires_at = row
    return Approval(id, turn_id, conversation_id, name, Raw(arguments.encode()), requested_at, expires_at)
