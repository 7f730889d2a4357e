"""The ledger of tool calls in SQL."""

from typing import Any

from msgspec import Raw
from sqlalchemy import Row, bindparam, select

from latchkey.domain.tool_call import ToolCall
from latchkey.domain.turn import TurnId
from latchkey.infrastructure.database.session import Session, columns_of, insert_mine, mine
from latchkey.infrastructure.database.tables import tool_calls

_ADD = insert_mine(tool_calls)
_OF_TURNS = (
    select(tool_calls.c.turn_id, *columns_of(tool_calls, ToolCall))
    .where(mine(tool_calls), tool_calls.c.turn_id.in_(bindparam("turns", expanding=True)))
    .order_by(tool_calls.c.turn_id, tool_calls.c.id)
)


class SqlToolCalls:
    """Oldest first within a turn."""

    def __init__(self, session: Session) -> None:
        self._session = session

    async def add(self, call: ToolCall, turn_id: TurnId) -> None:
        await self._session.run(
            _ADD,
            turn_id=turn_id,
            id=call.id,
            name=call.name,
            arguments=bytes(call.arguments).decode(),
            result=bytes(call.result).decode(),
            is_error=call.is_error,
            started_at=call.started_at,
            duration_ms=call.duration_ms,
        )

    async def of_turns(self, ids: list[TurnId]) -> dict[TurnId, list[ToolCall]]:
        found: dict[TurnId, list[ToolCall]] = {}
        for row in await self._session.rows(_OF_TURNS, turns=ids) if ids else ():
            found.setdefault(row.turn_id, []).append(_call(row))
        return found


def _call(row: Row[*tuple[Any, ...]]) -> ToolCall:
    return ToolCall(
        id=row.id,
        name=row.name,
        arguments=Raw(row.arguments.encode()),
        result=Raw(row.result.encode()),
        is_error=row.is_error,
        started_at=row.started_at,
        duration_ms=row.duration_ms,
    )
