"""The tables that `latchkey revision` writes for entities are those that their repositories use."""

import asyncio
from pathlib import Path

from latchkey.domain.credentials import Owner
from latchkey.domain.page import Window
from latchkey.infrastructure.database.app_schema import AppSchema
from latchkey.infrastructure.database.migrations import create_revision, upgrade
from latchkey.infrastructure.database.sql.engine import create_engine
from latchkey.infrastructure.database.unit_of_work import SqlUnitsOfWork
from tests.contract.database.entities import orm_shop, shop


async def test_revision_of_entities_creates_tables_for_their_repositories(
    database_url: str, tmp_path: Path, me: Owner
) -> None:
    entities = shop.SCHEMA.entities + orm_shop.SCHEMA.entities
    schema = AppSchema(entities, shop.SCHEMA.reference_tables, tmp_path)
    await asyncio.to_thread(create_revision, database_url, "First", schema)
    await asyncio.to_thread(upgrade, database_url, schema=schema)
    assert await asyncio.to_thread(create_revision, database_url, "Second", schema) is None

    engine = create_engine(database_url)
    units = SqlUnitsOfWork(engine, schema=schema)
    async with units.open(me, "write") as uow:
        await uow.repository(orm_shop.Bookings).add(orm_shop.Booking(comment="Blue", tags=["new"]))
        await uow.repository(shop.Reservations).add(shop.a_reservation())
        await uow.commit()
    async with units.open(me, "read") as uow:
        assert [booking.tags for booking in (await uow.repository(orm_shop.Bookings).page(Window())).items] == [["new"]]
        assert len((await uow.repository(shop.Reservations).page()).items) == 1
    await engine.dispose()
