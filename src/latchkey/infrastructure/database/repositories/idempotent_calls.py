"""Calls outside a turn, which clients may repeat by their id, in SQL."""

from datetime import datetime

from msgspec.structs import asdict
from sqlalchemy import and_, bindparam, delete, func, or_, select, update

from latchkey.domain.tool_call import IDEMPOTENCY_PERIOD, IdempotentCall
from latchkey.infrastructure.database.schema import idempotent_calls
from latchkey.infrastructure.database.sql.session import Session, columns_of, insert_for_user, owned_by_user

_EXPIRED = idempotent_calls.c.created_at <= bindparam("expired")
_HAS_KEY = and_(idempotent_calls.c.caller == bindparam("of_caller"), idempotent_calls.c.key == bindparam("of_key"))
_CALL_OR_EXPIRED = (
    select(*columns_of(idempotent_calls, IdempotentCall))
    .where(owned_by_user(idempotent_calls), or_(_HAS_KEY, _EXPIRED))
    .order_by(idempotent_calls.c.created_at.desc())
    .limit(1)
)
"""The call with this key, or an expired one, which shows that some can be removed. A call in force is the newest."""
_REMOVED_AT_ONCE = 100
_oldest = (
    select(idempotent_calls.c.created_at)
    .where(owned_by_user(idempotent_calls), _EXPIRED)
    .order_by(idempotent_calls.c.created_at)
    .limit(_REMOVED_AT_ONCE)
    .subquery()
)
_DELETE_EXPIRED = delete(idempotent_calls).where(
    owned_by_user(idempotent_calls),
    _EXPIRED,
    or_(_HAS_KEY, idempotent_calls.c.created_at <= select(func.max(_oldest.c.created_at)).scalar_subquery()),
)
_INSERT_IDEMPOTENT = insert_for_user(idempotent_calls)
_COMPLETE_IDEMPOTENT = update(idempotent_calls).where(
    owned_by_user(idempotent_calls),
    _HAS_KEY,
    idempotent_calls.c.digest == bindparam("of_digest"),
    idempotent_calls.c.response == bindparam("pending"),
)


class SqlIdempotentCalls:
    """Calls outside a turn. Expired ones are removed, some at a time, when a call is added."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self._has_expired = False

    async def find(self, caller: str, key: str, now: datetime) -> IdempotentCall | None:
        expired = now - IDEMPOTENCY_PERIOD
        row = await self._session.fetch_row(_CALL_OR_EXPIRED, of_caller=caller, of_key=key, expired=expired)
        call = None if row is None else IdempotentCall(*row)
        self._has_expired = call is not None and call.created_at <= expired
        return None if self._has_expired else call

    async def add(self, call: IdempotentCall) -> None:
        if self._has_expired:
            expired = call.created_at - IDEMPOTENCY_PERIOD
            await self._session.execute(_DELETE_EXPIRED, of_caller=call.caller, of_key=call.key, expired=expired)
        await self._session.defer(_INSERT_IDEMPOTENT, **asdict(call))

    async def complete(self, call: IdempotentCall, pending: str) -> None:
        await self._session.execute(
            _COMPLETE_IDEMPOTENT,
            of_caller=call.caller,
            of_key=call.key,
            of_digest=call.digest,
            pending=pending,
            response=call.response,
            is_error=call.is_error,
        )
