"""The tables of an app that rents out bicycles, and a folder for its revisions."""

from pathlib import Path

from advanced_alchemy.base import convention
from advanced_alchemy.types import GUID, DateTimeUTC
from sqlalchemy import JSON, Column, ForeignKeyConstraint, Index, MetaData, Text, UniqueConstraint, Uuid
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.schema import SchemaItem

from latchkey.infrastructure.database.app_schema import AppSchema
from latchkey.infrastructure.database.entity import entity_table, reference_table, user_foreign_key
from latchkey.infrastructure.database.schema import conversations


def shop(folder: Path, *more: SchemaItem) -> AppSchema:
    """Return an app whose reservations have more columns or keys than at first."""
    metadata = MetaData(naming_convention=convention)
    bicycles = reference_table(
        "bicycles", Column("id", Uuid(), primary_key=True), Column("name", Text()), metadata=metadata
    )
    reservations = entity_table(
        "reservations",
        Column("bicycle_id", Uuid(), nullable=False),
        Column("code", Text(), nullable=False),
        Column("options", JSON().with_variant(JSONB(), "postgresql")),
        Column("receipt_id", GUID()),
        Column("paid_at", DateTimeUTC(timezone=True)),
        UniqueConstraint("user_id", "code"),
        ForeignKeyConstraint(["bicycle_id"], ["bicycles.id"]),
        Index("ix_reservations_age", "user_id", "paid_at"),
        *more,
        metadata=metadata,
    )
    rides = entity_table(
        "Bike Rides",
        Column("reservation_id", Uuid(), nullable=False),
        Column("conversation_id", Uuid()),
        user_foreign_key("reservation_id", reservations, ondelete="CASCADE"),
        user_foreign_key("conversation_id", conversations, ondelete="CASCADE"),
        metadata=metadata,
    )
    return AppSchema((reservations, rides), (bicycles,), folder)
