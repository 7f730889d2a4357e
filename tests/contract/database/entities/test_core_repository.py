"""Contract of an app's repository in SQLAlchemy Core."""

from collections.abc import Awaitable, Callable
from itertools import product
from typing import Any
from uuid import UUID

import pytest
from msgspec.structs import replace
from sqlalchemy import delete, insert, select, update
from uuid_utils.compat import uuid7

from latchkey.application.access import requires
from latchkey.application.dispatcher import Dispatcher
from latchkey.domain.credentials import Grant, Owner
from latchkey.domain.errors import Conflict, Exhausted, NotFound, StaleVersion
from latchkey.domain.page import PAGE_BYTES, Window
from latchkey.domain.ports import UnitOfWork
from latchkey.domain.quota import ROW_BYTES, Quota
from latchkey.infrastructure.database.sql.session import ReadOnly, UnitOfWorkEnded
from latchkey.infrastructure.database.sql.tenant_guard import UnscopedStatement
from latchkey.infrastructure.database.unit_of_work import SqlUnitsOfWork
from tests.builders import NOW, a_task
from tests.contract.database.entities.orm_shop import Booking, Bookings
from tests.contract.database.entities.shop import (
    ALL_BICYCLES,
    BICYCLE,
    Reservation,
    Reservations,
    a_reservation,
    bicycles,
    reservations,
)
from tests.contract.database.pagination import assert_pages, assert_refuses


async def add(units: SqlUnitsOfWork, owner: Owner, *entities: Reservation) -> None:
    async with units.open(owner, "write") as uow:
        for entity in entities:
            await uow.repository(Reservations).add(entity)
        await uow.commit()


async def test_entity_round_trip(units: SqlUnitsOfWork, me: Owner) -> None:
    entity = a_reservation("Zwei Räder, 二輪 🚲", code="A-1", starts_at=NOW)
    await add(units, me, entity)

    async with units.open(me, "read") as uow:
        assert await uow.repository(Reservations).get(entity.id) == entity
        assert (await uow.repository(Reservations).page()).items == [entity]


async def test_repository_is_made_once_per_unit_of_work(units: SqlUnitsOfWork, me: Owner) -> None:
    async with units.open(me, "read") as uow:
        first = uow.repository(Reservations)
        assert uow.repository(Reservations) is first
    async with units.open(me, "read") as uow:
        assert uow.repository(Reservations) is not first


async def test_pagination_is_newest_first_with_any_page_size(units: SqlUnitsOfWork, me: Owner, you: Owner) -> None:
    entities = [a_reservation(f"Number {n}") for n in range(5)]
    await add(units, me, *entities)
    await add(units, you, a_reservation())

    async with units.open(me, "read") as uow:
        await assert_pages(uow.repository(Reservations).page, entities[::-1])


async def test_cursor_of_another_listing_is_refused(units: SqlUnitsOfWork, me: Owner) -> None:
    async with units.open(me, "write") as uow:
        for _ in range(2):
            await uow.tasks.add(a_task())
        tasks_cursor = (await uow.tasks.page(None, Window(1))).next_cursor
        await assert_refuses(uow.repository(Reservations).page, tasks_cursor)


async def test_page_filters_by_columns(units: SqlUnitsOfWork, me: Owner) -> None:
    entities = [a_reservation(bicycle_id=n, code=code) for n, code in product((1, 2), ("A-1", None))]
    entities[2] = replace(entities[2], code="A-2")
    await add(units, me, *entities)

    async with units.open(me, "read") as uow:
        page = uow.repository(Reservations).page
        assert (await page(bicycle_id=2)).items == [entities[3], entities[2]]
        assert (await page(code=None)).items == [entities[3], entities[1]]
        assert (await page(bicycle_id=2, code="A-2")).items == [entities[2]]
        assert (await page(bicycle_id=1, code="A-2")).items == []
        await assert_pages(lambda window: page(window, bicycle_id=1), [entities[1], entities[0]])
        with pytest.raises(KeyError):
            await page(colour="blue")


async def test_page_is_bounded_in_bytes_and_pagination_loses_nothing(units: SqlUnitsOfWork, me: Owner) -> None:
    entities = [a_reservation("買" * 100_000) for _ in range(20)]
    await add(units, me, *entities)

    ids: list[UUID] = []
    lengths: list[int] = []
    cursor = None
    async with units.open(me, "read") as uow:
        while not lengths or cursor:
            page = await uow.repository(Reservations).page(Window(200, cursor))
            ids += [entity.id for entity in page.items]
            lengths.append(len(page.items))
            cursor = page.next_cursor

    assert ids == [entity.id for entity in reversed(entities)]
    assert lengths == [7, 7, 6]
    assert PAGE_BYTES < 7 * 300_000


async def test_update_stores_the_next_version(units: SqlUnitsOfWork, me: Owner) -> None:
    entity = a_reservation()
    await add(units, me, entity)

    async with units.open(me, "write") as uow:
        stored = await uow.repository(Reservations).get(entity.id, for_update=True)
        changed = await uow.repository(Reservations).update(replace(stored, comment="Red"))
        await uow.commit()
        assert changed == replace(entity, comment="Red", version=2, updated_at=uow.now)

    async with units.open(me, "read") as uow:
        assert await uow.repository(Reservations).get(entity.id) == changed


async def test_update_of_stale_version_is_refused(units: SqlUnitsOfWork, me: Owner) -> None:
    entity = a_reservation()
    await add(units, me, entity)

    async with units.open(me, "write") as uow:
        await uow.repository(Reservations).update(entity)
        with pytest.raises(StaleVersion, match="The reservation is at version 2, not 1: read it again"):
            await uow.repository(Reservations).update(replace(entity, comment="Red"))
        await uow.commit()

    async with units.open(me, "read") as uow:
        assert (await uow.repository(Reservations).get(entity.id)).comment == "Blue"


async def test_delete_removes_the_entity(units: SqlUnitsOfWork, me: Owner) -> None:
    entity = a_reservation()
    await add(units, me, entity)

    async with units.open(me, "write") as uow:
        await uow.repository(Reservations).delete(entity.id)
        await uow.commit()

    async with units.open(me, "read") as uow:
        with pytest.raises(NotFound, match="There is no such reservation"):
            await uow.repository(Reservations).get(entity.id)


async def test_isolation_of_entities_between_users(units: SqlUnitsOfWork, me: Owner, you: Owner) -> None:
    """Another user's id is answered like one that does not exist."""
    entity = a_reservation()
    await add(units, you, entity)

    async with units.open(me, "write") as uow:
        mine = uow.repository(Reservations)
        for id in (entity.id, uuid7()):
            with pytest.raises(NotFound, match="There is no such reservation"):
                await mine.get(id)
            with pytest.raises(NotFound, match="There is no such reservation"):
                await mine.update(replace(entity, id=id))
            with pytest.raises(NotFound, match="There is no such reservation"):
                await mine.delete(id)
        assert (await mine.page()).items == []
        await mine.add(entity)  # the same id is another row
        await uow.commit()

    async with units.open(you, "read") as uow:
        assert await uow.repository(Reservations).get(entity.id) == entity


async def test_duplicate_of_a_unique_value_is_a_conflict_of_one_user_only(
    units: SqlUnitsOfWork, me: Owner, you: Owner
) -> None:
    await add(units, you, a_reservation(code="A-1"))
    await add(units, me, a_reservation(code="A-1"))

    with pytest.raises(Conflict, match="Another entry has the same value, which must be unique"):
        await add(units, me, a_reservation(code="A-1"))


async def test_read_only_unit_of_work_refuses_writes(units: SqlUnitsOfWork, me: Owner) -> None:
    async with units.open(me, "read") as uow:
        with pytest.raises(ReadOnly):
            await uow.repository(Reservations).add(a_reservation())


async def test_statement_of_an_app_is_pinned_to_the_user(units: SqlUnitsOfWork, me: Owner) -> None:
    async with units.open(me, "write") as uow:
        repository = uow.repository(Reservations)
        for statement in (select(reservations.c.id), delete(reservations), update(reservations).values(comment="x")):
            with pytest.raises(UnscopedStatement, match="reservations is not pinned to the user of the scope"):
                await repository.fetch(statement)


async def test_reference_table_is_readable_by_every_user(units: SqlUnitsOfWork, me: Owner, you: Owner) -> None:
    await add(units, me, a_reservation(bicycle_id=2), a_reservation(bicycle_id=2))
    await add(units, you, a_reservation(bicycle_id=1))

    for owner, counts in ((me, {"Red": 2}), (you, {"Blue": 1})):
        async with units.open(owner, "read") as uow:
            repository = uow.repository(Reservations)
            assert await repository.fetch(ALL_BICYCLES) == [("Blue",), ("Red",)]
            assert await repository.fetch_row(BICYCLE, key=2) == ("Red",)
            assert await repository.count_by_bicycle() == counts


async def test_reference_table_cannot_be_written_in_a_unit_of_work(units: SqlUnitsOfWork, me: Owner) -> None:
    async with units.open(me, "write") as uow:
        repository = uow.repository(Reservations)
        for statement in (
            insert(bicycles).values(id=3, name="Green"),
            update(bicycles).values(name="Green"),
            delete(bicycles).where(bicycles.c.id == 1),
        ):
            with pytest.raises(UnscopedStatement, match="bicycles is a reference table, which only migrations"):
                await repository.execute(statement)


async def test_stored_bytes_of_entities_count_in_the_quota(units: SqlUnitsOfWork, me: Owner, you: Owner) -> None:
    async with units.open(me, "write") as uow:
        await uow.repository(Reservations).add(a_reservation("買" * 1000, code="A-1"))
        written = uow.written
        await uow.commit()
    await add(units, you, a_reservation("x" * 5000))

    async with units.open(me, "read") as uow:
        measured = await uow.quota_usage.measure_storage()

    assert measured == 3003 + ROW_BYTES
    assert measured <= written < measured + 100


@requires(Grant("reservations:write"), stores=True)
async def reserve(uow: UnitOfWork, comment: str) -> None:
    await uow.repository(Reservations).add(a_reservation(comment))


@requires(Grant("reservations:write"), stores=True)
async def book(uow: UnitOfWork, comment: str) -> None:
    await uow.repository(Bookings).add(Booking(comment=comment))


@pytest.mark.parametrize("use_case", [reserve, book])
async def test_storage_quota_reached_by_entities_refuses_further_ones(
    units: SqlUnitsOfWork, me: Owner, you: Owner, use_case: Callable[[UnitOfWork, str], Awaitable[None]]
) -> None:
    """In the process that has stored them, and in one that measures what is there."""
    dispatcher = Dispatcher(units, lambda _call: None, Quota(stored_bytes=5_000))
    await dispatcher.call(me, use_case, "x" * 6_000)
    async with units.open(you, "write") as uow:
        await use_case(uow, "x" * 6_000)
        await uow.commit()

    for owner in (me, you):
        with pytest.raises(Exhausted, match="Storage quota of 5000 bytes reached"):
            await dispatcher.call(owner, use_case, "x")


async def test_statement_after_the_end_of_a_unit_of_work_is_refused(units: SqlUnitsOfWork, me: Owner) -> None:
    """Its connection may be in the transaction of another user by then."""
    kept: list[Any] = []
    async with units.open(me, "write") as uow:
        kept += [uow.repository(Reservations), uow.repository(Bookings)]
        await uow.commit()
        for repository in kept:
            with pytest.raises(UnitOfWorkEnded):
                await repository.page()
    async with units.open(me, "write") as uow:
        kept += [uow.repository(Reservations), uow.repository(Bookings)]
    for repository in kept:
        with pytest.raises(UnitOfWorkEnded, match="run all of its statements before the tool returns"):
            await repository.page()
