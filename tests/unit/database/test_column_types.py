"""Times: stored in UTC and read with a zone on SQLite, passed through unchanged on PostgreSQL."""

from datetime import UTC, datetime, timedelta, timezone

import pytest
from sqlalchemy import Dialect
from sqlalchemy.dialects import sqlite
from sqlalchemy.dialects.postgresql import asyncpg

from latchkey.infrastructure.database.schema import metadata, tasks

TIME = tasks.c.created_at.type
NEW_YORK = timezone(timedelta(hours=-5))
SQLITE = sqlite.dialect()


def round_trip(value: datetime, dialect: Dialect) -> datetime:
    implementation = TIME.dialect_impl(dialect)
    bind, result = implementation.bind_processor(dialect), implementation.result_processor(dialect, None)
    stored = bind(value) if bind else value
    read = result(stored) if result else stored
    assert isinstance(read, datetime)
    return read


def test_time_in_sqlite_is_read_in_utc() -> None:
    read = round_trip(datetime(2026, 1, 2, 3, 4, 5, 678901, tzinfo=NEW_YORK), SQLITE)

    assert read == datetime(2026, 1, 2, 8, 4, 5, 678901, tzinfo=UTC)
    assert read.utcoffset() == timedelta(0)


def test_time_without_zone_is_refused_by_sqlite() -> None:
    with pytest.raises(TypeError, match="tzinfo is required"):
        round_trip(datetime(2026, 1, 2), SQLITE)  # noqa: DTZ001  # that is the point


def test_time_in_postgresql_is_not_converted() -> None:
    dialect = asyncpg.dialect()  # type: ignore[no-untyped-call]
    implementation = TIME.dialect_impl(dialect)

    assert implementation.bind_processor(dialect) is None
    assert implementation.result_processor(dialect, None) is None


def test_naming_convention_names_every_constraint() -> None:
    for table in metadata.tables.values():
        assert table.primary_key.name == f"pk_{table.name}"
        assert all(constraint.name for constraint in table.foreign_key_constraints)
