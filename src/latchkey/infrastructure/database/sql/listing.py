"""Listings by id, newest first: prepared queries for each combination of filters, and pages bounded in bytes."""

from typing import Any, Generic, TypeVar
from uuid import UUID

from msgspec import Struct, defstruct
from sqlalchemy import (
    JSON,
    ColumnElement,
    Enum,
    LargeBinary,
    Select,
    String,
    Table,
    Text,
    TypeDecorator,
    bindparam,
    cast,
    func,
    literal,
    select,
)
from sqlalchemy.types import ARRAY, TypeEngine

from latchkey.domain.page import PAGE_BYTES, TURN_PAGE_BYTES, Page, Window
from latchkey.infrastructure.database.sql.session import (
    Session,
    Values,
    columns_of,
    octet_length,
    offsets,
    owned_by_user,
)

T = TypeVar("T", bound=Struct)
_Query = Select[*tuple[Any, ...]]
_Filters = tuple[tuple[str, bool], ...]
"""The columns that are filtered, each with whether it must be NULL."""

_BYTES_PER_CHARACTER = 4
_FIXED_ROW_BYTES = 1_000
"""The columns of limited size in a row."""


def size_of_row(table: Table) -> ColumnElement[int]:
    """Return the bytes in the columns of a row whose size varies: texts, JSON and binary values."""
    return sum((func.coalesce(_size(column), 0) for column in _varying_columns(table)), literal(0))


def max_row_bytes(table: Table) -> int | None:
    """Return the largest size of a row, or None if the size of a column has no limit."""
    lengths: list[int | None] = [
        getattr(_implementation(column.type), "length", None) for column in _varying_columns(table)
    ]
    known = [length for length in lengths if length is not None]
    return _FIXED_ROW_BYTES + sum(known) * _BYTES_PER_CHARACTER if len(known) == len(lengths) else None


class Listing(Generic[T]):
    """The rows of one table as entities, by descending UUIDv7, so by the time of their creation."""

    def __init__(self, table: Table, entity: type[T], *, max_bytes: int | None) -> None:
        """`max_bytes` is the largest size of a row, None if unknown. Few small rows need no sums of sizes."""
        self._table = table
        self._entity = entity
        self._max_plain_limit = PAGE_BYTES // max_bytes if max_bytes else 0
        # The tag keeps cursors of different listings apart.
        self._cursor: Any = defstruct(
            "Cursor", [("id", UUID)], tag=str(table.name), frozen=True, array_like=True, forbid_unknown_fields=True
        )
        self._plain: dict[tuple[_Filters, bool], _Query] = {}
        self._bounded: dict[tuple[_Filters, bool], _Query] = {}

    async def page(self, session: Session, window: Window, filters: Values) -> Page[T]:
        """Return the rows whose columns have these values; None is SQL's NULL. Raises `Invalid` for a wrong cursor."""
        last = window.decode_cursor(self._cursor)
        key = tuple((name, value is None) for name, value in filters.items())
        values = {f"equal_{name}": value for name, value in filters.items() if value is not None}
        if last is not None:
            values["before"] = last.id
        has_more = False
        if window.limit <= self._max_plain_limit:
            rows = await session.fetch(self._plain_query(key, last is not None), limit=window.limit + 1, **values)
        else:
            sized = await session.fetch(
                self._bounded_query(key, last is not None), limit=window.limit + 1, bytes=PAGE_BYTES, **values
            )
            has_more = bool(sized) and len(sized) < sized[0][-1]
            rows = [row[:-1] for row in sized]
        entities = [self._entity(*row) for row in rows]
        max_bytes = TURN_PAGE_BYTES if session.scope.turn_id else None
        return window.to_page(
            entities, key=lambda entity: self._cursor(entity.id), has_more=has_more, max_bytes=max_bytes
        )

    def _plain_query(self, filters: _Filters, is_continued: bool) -> _Query:  # noqa: FBT001 # part of the key
        query = self._plain.get((filters, is_continued))
        if query is None:
            table = self._table
            conditions = [owned_by_user(table), *(_condition(table.c[name], is_null) for name, is_null in filters)]
            if is_continued:
                conditions.append(table.c.id < bindparam("before"))
            query = self._plain[filters, is_continued] = (
                select(*columns_of(table, self._entity))
                .where(*conditions)
                .order_by(table.c.id.desc())
                .limit(bindparam("limit"))
            )
        return query

    def _bounded_query(self, filters: _Filters, is_continued: bool) -> _Query:  # noqa: FBT001 # part of the key
        """Return the query of the same page without the rows that begin after `bytes`.

        Its last column is the number of rows without that bound.
        """
        query = self._bounded.get((filters, is_continued))
        if query is None:
            table = self._table
            page = self._plain_query(filters, is_continued)
            candidates = page.with_only_columns(table.c.id, size_of_row(table).label("size")).subquery()
            sized = offsets(candidates, "id", newest_first=True)
            query = self._bounded[filters, is_continued] = (
                select(*columns_of(table, self._entity), sized.c.count)
                .select_from(sized.join(table, table.c.id == sized.c.of_key))
                .where(owned_by_user(table), sized.c.before < bindparam("bytes"))
                .order_by(table.c.id.desc())
            )
        return query


def _condition(column: ColumnElement[Any], is_null: bool) -> ColumnElement[bool]:  # noqa: FBT001 # from a key
    return column.is_(None) if is_null else column == bindparam(f"equal_{column.key}")


def _implementation(column_type: TypeEngine[Any]) -> TypeEngine[Any]:
    return column_type.impl_instance if isinstance(column_type, TypeDecorator) else column_type


def _varying_columns(table: Table) -> list[Any]:
    return [
        column
        for column in table.c
        if column.name != "user_id"
        and isinstance(_implementation(column.type), String | LargeBinary | JSON | ARRAY)
        and not isinstance(_implementation(column.type), Enum)
    ]


def _size(column: Any) -> ColumnElement[int]:
    if isinstance(_implementation(column.type), String | LargeBinary):
        return octet_length(column)
    return octet_length(cast(column, Text()))
