"""The database of a small app: bicycles are a reference table, reservations and their notes belong to users."""

from datetime import datetime
from typing import Any
from uuid import UUID

from msgspec import Struct
from sqlalchemy import Column, Index, Integer, MetaData, String, Table, Text, Uuid, bindparam, func, select
from sqlalchemy.ext.asyncio import create_async_engine
from uuid_utils.compat import uuid7

from latchkey.infrastructure.database.app_schema import AppSchema
from latchkey.infrastructure.database.entity import entity_table, reference_table, user_foreign_key
from latchkey.infrastructure.database.repository import Repository
from latchkey.infrastructure.database.schema import TIME
from latchkey.infrastructure.database.sql.postgresql import RUNTIME_ROLE
from latchkey.infrastructure.database.sql.session import owned_by_user
from latchkey.infrastructure.database.urls import parse
from tests.builders import NOW

METADATA = MetaData()

bicycles = reference_table(
    "bicycles",
    Column("id", Integer(), primary_key=True),
    Column("name", Text(), nullable=False),
    metadata=METADATA,
)

reservations = entity_table(
    "reservations",
    Column("bicycle_id", Integer(), nullable=False),
    Column("comment", Text(), nullable=False),
    Column("code", String(8)),
    Column("starts_at", TIME),
    Index("ix_reservations_bicycle", "user_id", "bicycle_id"),
    Index("uq_reservations_code", "user_id", "code", unique=True),
    metadata=METADATA,
)

reservation_notes = entity_table(
    "reservation_notes",
    Column("reservation_id", Uuid(), nullable=False),
    Column("text", Text(), nullable=False),
    user_foreign_key("reservation_id", reservations, ondelete="CASCADE"),
    metadata=METADATA,
)

SCHEMA = AppSchema(entities=(reservations, reservation_notes), reference_tables=(bicycles,))


class Reservation(Struct, frozen=True):
    id: UUID
    bicycle_id: int
    comment: str
    code: str | None
    starts_at: datetime | None
    version: int
    created_at: datetime
    updated_at: datetime


class Reservations(Repository[Reservation], table=reservations):
    """With a statement of its own, which reads a reference table."""

    async def count_by_bicycle(self) -> dict[str, int]:
        rows = await self.fetch(_COUNT_BY_BICYCLE)
        return {row[0]: row[1] for row in rows}


_COUNT_BY_BICYCLE = (
    select(bicycles.c.name, func.count())
    .select_from(bicycles.join(reservations, reservations.c.bicycle_id == bicycles.c.id))
    .where(owned_by_user(reservations))
    .group_by(bicycles.c.name)
)
ALL_BICYCLES = select(bicycles.c.name).order_by(bicycles.c.id)
BICYCLE = select(bicycles.c.name).where(bicycles.c.id == bindparam("key"))


def a_reservation(comment: str = "Blue", **values: Any) -> Reservation:
    defaults: dict[str, Any] = {
        "id": uuid7(),
        "bicycle_id": 1,
        "code": None,
        "starts_at": None,
        "version": 1,
        "created_at": NOW,
        "updated_at": NOW,
    }
    return Reservation(comment=comment, **{**defaults, **values})


async def create_tables(url: str, metadata: MetaData = METADATA) -> None:
    """Create the tables in a migrated database, as a migration of the app does; two bicycles in this one."""
    engine = create_async_engine(parse(url)[0])
    async with engine.begin() as connection:
        await connection.run_sync(metadata.create_all)
        if engine.dialect.name == "postgresql":
            for table in metadata.sorted_tables:
                for statement in _security(table):
                    await connection.exec_driver_sql(statement)
        if metadata is METADATA:
            await connection.execute(bicycles.insert(), [{"id": 1, "name": "Blue"}, {"id": 2, "name": "Red"}])
    await engine.dispose()


def _security(table: Table) -> list[str]:
    if table.info["latchkey"] == "reference":
        return [f"GRANT SELECT ON {table.name} TO {RUNTIME_ROLE}"]
    mine = "user_id = current_setting('app.user_id')"
    return [
        f"ALTER TABLE {table.name} ENABLE ROW LEVEL SECURITY",
        f"ALTER TABLE {table.name} FORCE ROW LEVEL SECURITY",
        f"CREATE POLICY {table.name}_of_user ON {table.name} USING ({mine}) WITH CHECK ({mine})",
        f"GRANT SELECT, INSERT, UPDATE, DELETE ON {table.name} TO {RUNTIME_ROLE}",
    ]
