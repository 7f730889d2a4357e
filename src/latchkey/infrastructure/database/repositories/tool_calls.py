"""The ledger of tool calls in SQL."""

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

_ADD = insert_for_user(tool_calls)
# In this much the two databases speak alike, and SQLAlchemy renders it for both.
_ADD_IF_ABSENT = postgresql.insert(tool_calls).values(user_id=bindparam(USER)).on_conflict_do_nothing()
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
_UNDER_ID = select(*columns_of(tool_calls, ToolCall)).where(
    owned_by_user(tool_calls), tool_calls.c.turn_id == bindparam("turn"), tool_calls.c.call_id == bindparam("call_id")
)
CALLS_OF_TURN = select(*columns_of(tool_calls, ToolCall)).where(
    owned_by_user(tool_calls), tool_calls.c.turn_id == bindparam("turn")
)


class SqlToolCalls:
    """Oldest first within a turn."""

    def __init__(self, session: Session) -> None:
        self._session = session

    async def add(self, call: ToolCall, turn_id: TurnId, call_id: str | None = None) -> None:
        await self._session.defer(
            _ADD, turn_id=turn_id, id=call.id, call_id=call_id, result=bytes(call.result).decode(), **_values(call)
        )

    async def add_if_absent(self, call: ToolCall, turn_id: TurnId, call_id: str) -> bool:
        result = bytes(call.result).decode() if call.has_result else None
        return bool(
            await self._session.execute(
                _ADD_IF_ABSENT, turn_id=turn_id, id=call.id, call_id=call_id, result=result, **_values(call)
            )
        )

    async def set_result(self, turn_id: TurnId, call_id: str, call: ToolCall) -> ToolCallId:
        result = bytes(call.result).decode()
        row = await self._session.fetch_row(_SET_RESULT, turn=turn_id, known_as=call_id, result=result, **_values(call))
        if row is None:
            raise DuplicateToolCall("The turn has no call under this id that waits for its result.")
        id: ToolCallId = row[0]
        return id

    async def find(self, turn_id: TurnId, call_id: str) -> ToolCall | None:
        row = await self._session.fetch_row(_UNDER_ID, turn=turn_id, call_id=call_id)
        return None if row is None else call_of(row)

    async def list_by_turn(self, ids: list[TurnId]) -> dict[TurnId, list[ToolCall]]:
        found: dict[TurnId, list[ToolCall]] = {}
        if ids:
            padded = _padded(ids)
            turns = {f"turn{index}": id for index, id in enumerate(padded)}
            for turn_id, *call in await self._session.fetch(_of_turns(len(padded)), **turns):
                found.setdefault(turn_id, []).append(call_of(call))
        return found


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
    """As many as a power of two, the last one again and again: each number is a statement of its own."""
    return ids + ids[-1:] * ((1 << (len(ids) - 1).bit_length()) - len(ids))


def _values(call: ToolCall) -> dict[str, Any]:
    return {
        "name": call.name,
        "arguments": bytes(call.arguments).decode(),
        "is_error": call.is_error,
        "started_at": call.started_at,
        "duration_ms": call.duration_ms,
    }


def call_of(row: Row) -> ToolCall:
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
