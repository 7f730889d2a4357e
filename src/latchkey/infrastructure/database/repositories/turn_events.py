"""Turn events in SQL."""

from typing import Any

from sqlalchemy import bindparam, func, select

from latchkey.domain.turn import TurnId
from latchkey.domain.turn_event import TurnEvent
from latchkey.infrastructure.database.schema import turn_events
from latchkey.infrastructure.database.sql.session import Session, insert_for_user, owned_by_user

_INSERT = insert_for_user(turn_events)
_SIZE = func.length(turn_events.c.body)
_FIRST_EVENTS = (
    select(
        turn_events.c.seq,
        turn_events.c.name,
        turn_events.c.body,
        (func.sum(_SIZE).over(order_by=turn_events.c.seq) - _SIZE).label("before"),
    )
    .where(
        owned_by_user(turn_events), turn_events.c.turn_id == bindparam("turn"), turn_events.c.seq > bindparam("after")
    )
    .order_by(turn_events.c.seq)
    .limit(bindparam("limit"))
    .subquery()
)
_FIRST_EVENTS_WITHIN_SIZE = (
    select(_FIRST_EVENTS.c.seq, _FIRST_EVENTS.c.name, _FIRST_EVENTS.c.body)
    .where(_FIRST_EVENTS.c.before < bindparam("characters"))
    .order_by(_FIRST_EVENTS.c.seq)
)


class SqlTurnEvents:
    """Events in the order of `seq`. Added events are also appended to `added`, for the event bus."""

    def __init__(self, session: Session, added: list[TurnEvent]) -> None:
        self._session = session
        self._added = added

    async def add(self, *events: TurnEvent) -> None:
        for event in events:
            await self._session.defer(_INSERT, **_values(event))
        self._added += events

    async def list_after(self, turn_id: TurnId, seq: int, limit: int, characters: int) -> list[TurnEvent]:
        rows = await self._session.fetch(
            _FIRST_EVENTS_WITHIN_SIZE, turn=turn_id, after=seq, limit=limit, characters=characters
        )
        return [TurnEvent(turn_id, seq, name, body.encode()) for seq, name, body in rows]


def _values(event: TurnEvent) -> dict[str, Any]:
    return {"turn_id": event.turn_id, "seq": event.seq, "name": event.name, "body": event.body.decode()}
