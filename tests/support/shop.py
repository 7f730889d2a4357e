"""The tables of an app that rents out bicycles, and a folder for its revisions."""

from pathlib import Path

from advanced_alchemy.base import convention
from advanced_alchemy.types import GUID, DateTimeUTC
from sqlalchemy import (
    JSON,
    Column,
    DateTime,
    ForeignKeyConstraint,
    Index,
    Integer,
    MetaData,
    PrimaryKeyConstraint,
    String,
    Table,
    Text,
    UniqueConstraint,
    Uuid,
)
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.schema import SchemaItem

from latchkey.infrastructure.database.app_schema import AppSchema

_TIME = DateTime(timezone=True).with_variant(DateTimeUTC(timezone=True), "sqlite")


def shop(folder: Path, *more: SchemaItem) -> AppSchema:
    """Return an app whose reservations have more columns or keys than at first."""
    metadata = MetaData(naming_convention=convention)
    bicycles = Table("bicycles", metadata, Column("id", Uuid(), primary_key=True), Column("name", Text()))
    reservations = Table(
        "reservations",
        metadata,
        Column("user_id", String(128), nullable=False),
        Column("id", Uuid(), nullable=False),
        Column("bicycle_id", Uuid(), nullable=False),
        Column("code", Text(), nullable=False),
        Column("options", JSON().with_variant(JSONB(), "postgresql")),
        Column("receipt_id", GUID()),
        Column("paid_at", DateTimeUTC(timezone=True)),
        Column("version", Integer(), nullable=False),
        Column("created_at", _TIME, nullable=False),
        PrimaryKeyConstraint("user_id", "id"),
        UniqueConstraint("user_id", "code"),
        ForeignKeyConstraint(["bicycle_id"], ["bicycles.id"]),
        Index("ix_reservations_age", "user_id", "created_at"),
        *more,
    )
    rides = Table(
        "Bike Rides",
        metadata,
        Column("user_id", String(128), nullable=False),
        Column("id", Uuid(), nullable=False),
        Column("reservation_id", Uuid(), nullable=False),
        PrimaryKeyConstraint("user_id", "id"),
        ForeignKeyConstraint(
            ["user_id", "reservation_id"], ["reservations.user_id", "reservations.id"], ondelete="CASCADE"
        ),
    )
    return AppSchema((reservations, rides), (bicycles,), folder)
