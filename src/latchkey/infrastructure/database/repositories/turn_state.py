"""The state of a turn that a tool call needs. It is read in the query that resolves the turn's token."""

from datetime import datetime

from msgspec import Struct
from sqlalchemy import exists, select

from latchkey.domain.turn import TurnId, TurnStatus
from latchkey.infrastructure.database.schema import tool_calls, turns
from latchkey.infrastructure.database.sql.session import owned_by_user


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
