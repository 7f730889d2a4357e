"""Quota usage in SQL."""

from functools import cache
from typing import Any

from sqlalchemy import ColumnElement, Select, Table, bindparam, func, literal, select, update
from sqlalchemy.dialects import postgresql
from sqlalchemy.types import Text

from latchkey.domain.quota import ROW_BYTES, QuotaUsage
from latchkey.infrastructure.database.schema import metadata, quota_usage
from latchkey.infrastructure.database.sql.listing import size_of_row
from latchkey.infrastructure.database.sql.session import Session, columns_of, octet_length, owned_by_user
from latchkey.infrastructure.database.sql.tenant_guard import USER


def _size_of(table: Table) -> ColumnElement[int]:
    texts = [column for column in table.c if isinstance(column.type, Text)]
    size = sum((func.coalesce(octet_length(column), 0) for column in texts), literal(ROW_BYTES))
    return select(func.coalesce(func.sum(size), 0)).where(owned_by_user(table)).scalar_subquery()


def _size_of_entities(table: Table) -> ColumnElement[int]:
    size = func.sum(size_of_row(table) + ROW_BYTES)
    return select(func.coalesce(size, 0)).where(owned_by_user(table)).scalar_subquery()


_OF_USER_FOR_UPDATE = select(*columns_of(quota_usage, QuotaUsage)).where(owned_by_user(quota_usage)).with_for_update()
_INSERT = postgresql.insert(quota_usage).values(user_id=bindparam(USER)).on_conflict_do_nothing()
_UPDATE = update(quota_usage).where(owned_by_user(quota_usage))
_OF_BUILT_IN_TABLES = sum((_size_of(table) for table in metadata.sorted_tables), literal(0))


@cache
def stored_bytes(entities: tuple[Table, ...]) -> Select[tuple[int]]:
    """Return the query of the bytes that the user stores in the built-in tables and in those of an app."""
    return select(sum((_size_of_entities(table) for table in entities), _OF_BUILT_IN_TABLES))


_STORED_BYTES = stored_bytes(())


class SqlQuotaUsages:
    """The usage of the scope's user: one row."""

    def __init__(self, session: Session, entities: tuple[Table, ...]) -> None:
        """`entities` are the tables of an app."""
        self._session = session
        self._entities = entities

    async def get(self) -> QuotaUsage | None:
        row = await self._session.fetch_row(_OF_USER_FOR_UPDATE)
        return None if row is None else QuotaUsage(*row)

    async def add(self, usage: QuotaUsage) -> QuotaUsage:
        await self._session.execute(_INSERT, **_values(usage))
        return await self.get() or usage

    async def update(self, usage: QuotaUsage) -> None:
        await self._session.defer(_UPDATE, **_values(usage))

    async def measure_storage(self) -> int:
        ((size,),) = await self._session.fetch(stored_bytes(self._entities))
        return int(size)


def _values(usage: QuotaUsage) -> dict[str, Any]:
    return {
        "theoretical_arrival_time": usage.theoretical_arrival_time,
        "stored_bytes": usage.stored_bytes,
        "counted_at": usage.counted_at,
    }
