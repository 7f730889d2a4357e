"""Tool calls in SQL."""

from functools import cache
from typing import Any

from msgspec import Raw
from sqlalchemy import BindParameter, Select, bindparam, select, update
from sqlalchemy.dialects import postgresql

from latchkey.domain.errors import DuplicateToolCall
from latchkey.domain.tool_call import NO_RESULT, ToolCall, ToolCallId
from latchkey.domain.turn import TurnId
from latchkey.infrastructure.database.schema import tool_calls
from latchkey.infrastructure.database.sql.driver import Row
from latchkey.infrastructure.database.sql.session import Session, columns_of, insert_for_user, owned_by_user
from latchkey.infrastructure.database.sql.tenant_guard import USER

_INSERT = insert_for_user(tool_calls)
# PostgreSQL's construct compiles for SQLite too: ON CONFLICT DO NOTHING is the same in both.
_INSERT_IF_ABSENT = postgresql.insert(tool_calls).values(user_id=bindparam(USER)).on_conflict_do_nothing()
_SET_RESULT = (
    update(tool_calls)
    .where(
        owned_by_user(tool_calls),
        tool_calls.c.turn_id == bindparam("turn"),
        tool_calls.c.call_id == bindparam("known_as"),
        tool_calls.c.result.is_(None),
    )
    .returning(tool_calls.c.id)
)
_BY_CALL_ID = select(*columns_of(tool_calls, ToolCall)).where(
    owned_by_user(tool_calls), tool_calls.c.turn_id == bindparam("turn"), tool_calls.c.call_id == bindparam("call_id")
)
CALLS_OF_TURN = select(*columns_of(tool_calls, ToolCall)).where(
    owned_by_user(tool_calls), tool_calls.c.turn_id == bindparam("turn")
)


class SqlToolCalls:
    """Tool calls, oldest first within a turn."""

    def __init__(self, session: Session) -> None:
        self._session = session

    async def add(self, call: ToolCall, turn_id: TurnId, call_id: str | None = None) -> None:
        await self._session.defer(
            _INSERT, turn_id=turn_id, id=call.id, call_id=call_id, result=bytes(call.result).decode(), **_values(call)
        )

    async def add_if_absent(self, call: ToolCall, turn_id: TurnId, call_id: str) -> bool:
        result = bytes(call.result).decode() if call.has_result else None
        return bool(
            await self._session.execute(
                _INSERT_IF_ABSENT, turn_id=turn_id, id=call.id, call_id=call_id, result=result, **_values(call)
            )
        )

    async def set_result(self, turn_id: TurnId, call_id: str, call: ToolCall) -> ToolCallId:
        result = bytes(call.result).decode()
        row = await self._session.fetch_row(_SET_RESULT, turn=turn_id, known_as=call_id, result=result, **_values(call))
        if row is None:
            raise DuplicateToolCall("The turn has no tool call with this id that waits for a result.")
        id: ToolCallId = row[0]
        return id

    async def find(self, turn_id: TurnId, call_id: str) -> ToolCall | None:
        row = await self._session.fetch_row(_BY_CALL_ID, turn=turn_id, call_id=call_id)
        return None if row is None else tool_call_from_row(row)

    async def list_by_turn(self, ids: list[TurnId]) -> dict[TurnId, list[ToolCall]]:
        calls: dict[TurnId, list[ToolCall]] = {}
        if ids:
            padded = _padded(ids)
            turns = {f"turn{index}": id for index, id in enumerate(padded)}
            for turn_id, *call in await self._session.fetch(_of_turns(len(padded)), **turns):
                calls.setdefault(turn_id, []).append(tool_call_from_row(call))
        return calls


@cache
def _of_turns(count: int) -> Select[*tuple[Any, ...]]:
    turn_id = tool_calls.c.turn_id
    turns: list[BindParameter[Any]] = [bindparam(f"turn{index}", type_=turn_id.type) for index in range(count)]
    return (
        select(turn_id, *columns_of(tool_calls, ToolCall))
        .where(owned_by_user(tool_calls), turn_id.in_(turns))
        .order_by(turn_id, tool_calls.c.id)
    )


def _padded(ids: list[TurnId]) -> list[TurnId]:
    """Repeat the last id up to a power of two, so that few different statements are prepared."""
    return ids + ids[-1:] * ((1 << (len(ids) - 1).bit_length()) - len(ids))


def _values(call: ToolCall) -> dict[str, Any]:
    return {
        "name": call.name,
        "arguments": bytes(call.arguments).decode(),
        "is_error": call.is_error,
        "started_at": call.started_at,
        "duration_ms": call.duration_ms,
    }


def tool_call_from_row(row: Row) -> ToolCall:
    id, name, arguments, result, is_error, started_at, duration_ms = row
    return ToolCall(
        id=id,
        name=name,
        arguments=Raw(arguments.encode()),
        result=NO_RESULT if result is None else Raw(result.encode()),
        is_error=is_error,
        started_at=started_at,
        duration_ms=duration_ms,
    )
