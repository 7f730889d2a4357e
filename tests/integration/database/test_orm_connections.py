"""Connections of units of work that use the ORM: a lost or cancelled statement leaves nothing broken."""

from collections.abc import AsyncIterator
from itertools import count

import asyncpg
import pytest
from sqlalchemy import func, select

from latchkey.domain.credentials import Owner, UserId
from latchkey.domain.errors import Unavailable
from latchkey.domain.page import Window
from latchkey.infrastructure.database.sql.engine import create_engine
from latchkey.infrastructure.database.sql.session import owned_by_user
from latchkey.infrastructure.database.unit_of_work import SqlUnitsOfWork
from tests.builders import a_task
from tests.contract.database.cancellation import is_cancelled_at
from tests.contract.database.entities.orm_shop import SCHEMA, Base, Booking, BookingNote, Bookings, booking_notes
from tests.contract.database.entities.shop import create_tables
from tests.integration.database.test_connection_failures import KILL

ME = Owner(UserId("me"))
COUNT_NOTES = select(func.count()).select_from(booking_notes).where(owned_by_user(booking_notes))


@pytest.fixture
async def units(database_url: str) -> AsyncIterator[SqlUnitsOfWork]:
    await create_tables(database_url, Base.metadata)
    engine = create_engine(database_url)
    yield SqlUnitsOfWork(engine, schema=SCHEMA)
    await engine.dispose()


async def add(units: SqlUnitsOfWork, comment: str) -> None:
    async with units.open(ME, "write") as uow:
        await uow.tasks.add(a_task(comment))
        await uow.repository(Bookings).add(Booking(comment=comment, notes=[BookingNote(text=comment)]))
        await uow.commit()


async def comments(units: SqlUnitsOfWork) -> list[str]:
    async with units.open(ME, "read") as uow:
        return [booking.comment for booking in await uow.repository(Bookings).get_many()]


async def test_orm_unit_of_work_cancelled_at_any_point_happens_as_a_whole_or_not_at_all(
    units: SqlUnitsOfWork,
) -> None:
    for wait in count(1):
        if not await is_cancelled_at(wait, add(units, f"Number {wait}")):
            break
        await add(units, "And on")
    stored = await comments(units)
    async with units.open(ME, "read") as uow:
        titles = [task.title for task in (await uow.tasks.page(None, Window(200))).items]
        notes = await uow.session.fetch(COUNT_NOTES)

    assert wait > 3
    assert stored.count("And on") == wait - 1
    assert sorted(titles) == sorted(stored)
    assert notes == [(len(stored),)]


async def test_connection_lost_during_orm_statement_is_unavailable(superuser_url: str, postgresql_url: str) -> None:
    await create_tables(postgresql_url, Base.metadata)
    engine = create_engine(postgresql_url)
    units = SqlUnitsOfWork(engine, schema=SCHEMA)
    await add(units, "Before")
    killer = await asyncpg.connect(superuser_url)

    async def lose() -> None:
        async with units.open(ME, "write") as uow:
            assert await uow.repository(Bookings).count() == 1
            await killer.execute(KILL)
            await uow.repository(Bookings).add(Booking(comment="Lost"))

    for _ in range(25):  # more often than the pool has connections
        with pytest.raises(Unavailable):
            await lose()
    await killer.close()
    await add(units, "After")

    assert sorted(await comments(units)) == ["After", "Before"]
    await engine.dispose()
