"""What constraints are called, and how times are kept: as Advanced Alchemy has it, without importing it (ADR 14)."""

from datetime import UTC, datetime

from sqlalchemy import DateTime, Dialect, TypeDecorator

NAMES = {
    "ix": "ix_%(column_0_label)s",
    "uq": "uq_%(table_name)s_%(column_0_name)s",
    "ck": "ck_%(table_name)s_%(constraint_name)s",
    "fk": "fk_%(table_name)s_%(column_0_name)s_%(referred_table_name)s",
    "pk": "pk_%(table_name)s",
}


class UtcTime(TypeDecorator[datetime]):
    """A time with its zone, in a database that knows none: it is kept in UTC. Raises `TypeError` for one without."""

    impl = DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        if value is None:
            return None
        if value.tzinfo is None:
            raise TypeError("a time needs its zone")
        return value.astimezone(UTC)

    def process_result_value(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        return value and value.replace(tzinfo=UTC)


TIME = DateTime(timezone=True).with_variant(UtcTime(), "sqlite")
"""SQLite knows no time zones. PostgreSQL does, and to convert its times again costs 40 us for a list of 50 tasks."""
