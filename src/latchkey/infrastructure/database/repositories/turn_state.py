"""How far a turn has come, as it is read together with its token: then a call need not ask for it."""

from datetime import datetime

from msgspec import Struct
from sqlalchemy import select

from latchkey.domain.turn import TurnId, TurnStatus
from latchkey.infrastructure.database.schema import turns
from latchkey.infrastructure.database.sql.session import owned_by_user


class TurnState(Struct, frozen=True):
    """The number of its newest event, and how many tools it has called."""

    id: TurnId
    status: TurnStatus
    lease_until: datetime
    last_event: int
    calls: int

    def is_running(self, now: datetime) -> bool:
        return self.status == "running" and now < self.lease_until


TURN_STATES = select(*(turns.c[field] for field in TurnState.__struct_fields__)).where(owned_by_user(turns))
TURN_STATE = TURN_STATES.subquery("standing")
"""To be joined with what names a turn."""
