"""Contract of an app's repository for SQLAlchemy's ORM, in the transaction of a unit of work."""

from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import delete, func, insert, select, union_all, update
from sqlalchemy.orm import aliased, selectinload

from latchkey.domain.credentials import Owner
from latchkey.domain.errors import Conflict, NotFound, StaleVersion
from latchkey.domain.page import PAGE_BYTES, Window
from latchkey.domain.quota import ROW_BYTES
from latchkey.infrastructure.database.sql.session import ReadOnly
from latchkey.infrastructure.database.sql.tenant_guard import UnscopedStatement
from latchkey.infrastructure.database.unit_of_work import SqlUnitsOfWork
from tests.builders import a_task
from tests.contract.database.entities.orm_shop import (
    Booking,
    BookingNote,
    BookingNotes,
    Bookings,
    booking_notes,
    bookings,
)
from tests.contract.database.entities.shop import Reservations, a_reservation, bicycles
from tests.contract.database.pagination import assert_refuses, walk

other = aliased(Booking)


async def add(units: SqlUnitsOfWork, owner: Owner, *bookings: Booking) -> None:
    async with units.open(owner, "write") as uow:
        await uow.repository(Bookings).add_many(list(bookings))
        await uow.commit()


async def test_entity_round_trip(units: SqlUnitsOfWork, me: Owner) -> None:
    """The unit of work sets the user, the id, the version and the times."""
    async with units.open(me, "write") as uow:
        added = await uow.repository(Bookings).add(Booking(comment="二輪 🚲", tags=["new", "ü"]))
        await uow.commit()

    async with units.open(me, "read") as uow:
        stored = await uow.repository(Bookings).get(added.id)

    assert (stored.user_id, stored.version, stored.comment, stored.tags) == (me.user_id, 1, "二輪 🚲", ["new", "ü"])
    assert stored.created_at == stored.updated_at == added.created_at
    assert stored.id.version == 7
    assert "sa_orm_sentinel" not in Booking.__table__.c


async def test_pagination_is_newest_first_with_any_page_size(units: SqlUnitsOfWork, me: Owner, you: Owner) -> None:
    made = [Booking(comment=f"Number {n}", code=f"A-{n}") for n in range(5)]
    await add(units, you, Booking(comment="other"))
    for booking in made:
        await add(units, me, booking)

    async with units.open(me, "read") as uow:
        page = uow.repository(Bookings).page
        for limit in range(1, 7):
            assert [booking.id for booking in await walk(page, limit)] == [booking.id for booking in reversed(made)]
        assert [booking.code for booking in (await page(Window(), code="A-3")).items] == ["A-3"]
        assert [booking.code for booking in (await page(Window(2), Booking.code != "A-3")).items] == ["A-4", "A-2"]
        reservations_cursor = "WyJyZXNlcnZhdGlvbnMiLCIwMTlhMWY4OC00NjhkLTc3YTgtOTgwZS05ZjQ2MDhlMWRmYmYiXQ"
        await assert_refuses(page, reservations_cursor)


async def test_page_is_bounded_in_bytes_and_pagination_loses_nothing(units: SqlUnitsOfWork, me: Owner) -> None:
    made = [Booking(comment="買" * 50_000, tags=["買" * 50_000]) for _ in range(20)]
    await add(units, me, *made)

    ids: list[UUID] = []
    lengths: list[int] = []
    cursor = None
    async with units.open(me, "read") as uow:
        while not lengths or cursor:
            page = await uow.repository(Bookings).page(Window(200, cursor))
            ids += [booking.id for booking in page.items]
            lengths.append(len(page.items))
            cursor = page.next_cursor

    assert sorted(ids) == sorted(booking.id for booking in made)
    assert max(lengths) * 300_000 < PAGE_BYTES + 600_000
    assert len(lengths) > 2


async def test_update_of_a_read_entity_stores_the_next_version(units: SqlUnitsOfWork, me: Owner) -> None:
    booking = Booking(comment="Blue")
    await add(units, me, booking)

    async with units.open(me, "write") as uow:
        stored = await uow.repository(Bookings).get(booking.id)
        stored.comment = "Red"
        await uow.commit()
        assert (stored.version, stored.updated_at) == (2, uow.now)

    async with units.open(me, "read") as uow:
        assert (await uow.repository(Bookings).get(booking.id)).comment == "Red"


async def test_update_of_stale_version_is_refused(units: SqlUnitsOfWork, me: Owner) -> None:
    booking = Booking(comment="Blue")
    await add(units, me, booking)

    async with units.open(me, "write") as uow:
        mine = uow.repository(Bookings)
        assert (await mine.update(Booking(id=booking.id, version=1, comment="Red"))).version == 2
        for call in (mine.update, lambda stale: mine.update_many([stale])):
            with pytest.raises(StaleVersion, match="The booking is at version 2, not 1: read it again"):
                await call(Booking(id=booking.id, version=1, comment="Green"))
        await uow.commit()

    async with units.open(me, "read") as uow:
        assert (await uow.repository(Bookings).get(booking.id)).comment == "Red"


async def test_concurrent_update_is_a_stale_version(units: SqlUnitsOfWork, me: Owner) -> None:
    """The version that was read is compared by the UPDATE."""
    booking = Booking(comment="Blue")
    await add(units, me, booking)
    async with units.open(me, "read") as uow:
        read = await uow.repository(Bookings).get(booking.id)
        uow.repository(Bookings).session.expunge(read)
    await update_comment(units, me, booking.id, "Red")

    async def store() -> None:
        async with units.open(me, "write") as uow:
            uow.repository(Bookings).session.add(read)
            read.comment = "Green"
            await uow.commit()

    with pytest.raises(StaleVersion, match="This has been changed since it was read"):
        await store()


async def update_comment(units: SqlUnitsOfWork, owner: Owner, id: UUID, comment: str) -> None:
    async with units.open(owner, "write") as uow:
        (await uow.repository(Bookings).get(id)).comment = comment
        await uow.commit()


async def test_unknown_id_is_not_found(units: SqlUnitsOfWork, me: Owner) -> None:
    async with units.open(me, "write") as uow:
        mine = uow.repository(Bookings)
        for call in (mine.get, mine.delete, lambda key: mine.update(Booking(id=key, comment="x"))):
            with pytest.raises(NotFound, match="There is no such booking"):
                await call(uow.new_id())


async def test_upsert_adds_and_updates(units: SqlUnitsOfWork, me: Owner) -> None:
    async with units.open(me, "write") as uow:
        mine, id = uow.repository(Bookings), uow.new_id()
        assert (await mine.upsert(Booking(id=id, comment="Blue"))).version == 1
        assert (await mine.upsert(Booking(id=id, comment="Red"))).version == 2
        first, second = await mine.upsert_many([Booking(id=id, comment="Green"), Booking(comment="New")])
        assert (first.id, first.version, second.version) == (id, 3, 1)
        await uow.commit()

    async with units.open(me, "read") as uow:
        assert [booking.comment for booking in (await uow.repository(Bookings).page()).items] == ["New", "Green"]


async def test_relationship_is_stored_loaded_and_deleted_for_the_user(units: SqlUnitsOfWork, me: Owner) -> None:
    booking = Booking(comment="Blue", notes=[BookingNote(text="one"), BookingNote(text="two")])
    await add(units, me, booking)

    async with units.open(me, "write") as uow:
        mine = uow.repository(Bookings)
        stored = await mine.get(booking.id, load=selectinload(Booking.notes))
        assert sorted(note.text for note in stored.notes) == ["one", "two"]
        assert {note.user_id for note in stored.notes} == {me.user_id}
        await mine.delete(booking.id)
        assert await uow.repository(BookingNotes).count() == 0
        await uow.commit()


async def test_failed_unit_of_work_rolls_back_orm_changes(units: SqlUnitsOfWork, me: Owner) -> None:
    async with units.open(me, "write") as uow:
        await uow.repository(Bookings).add(Booking(comment="Blue"))
        await uow.tasks.add(a_task())

    async with units.open(me, "read") as uow:
        assert await uow.repository(Bookings).count() == 0
        assert (await uow.tasks.page(None, Window())).items == []


async def test_orm_and_core_see_each_others_writes_in_order(units: SqlUnitsOfWork, me: Owner) -> None:
    async with units.open(me, "write") as uow:
        orm, core = uow.repository(Bookings), uow.repository(Reservations)
        orm.session.add(Booking(comment="Blue"))  # not sent yet
        await core.add(a_reservation())  # waits
        assert await core.fetch(select(bicycles.c.id)) == [(1,), (2,)]
        assert await orm.count() == 1
        task = a_task()
        await uow.tasks.add(task)  # waits
        assert await orm.count() == 1
        assert await uow.tasks.get(task.id) == task
        await uow.commit()

    async with units.open(me, "read") as uow:
        assert len((await uow.repository(Reservations).page()).items) == 1
        assert await uow.repository(Bookings).count() == 1


async def test_duplicate_of_a_unique_value_is_a_conflict_of_one_user_only(
    units: SqlUnitsOfWork, me: Owner, you: Owner
) -> None:
    await add(units, you, Booking(comment="Blue", code="A-1"))
    await add(units, me, Booking(comment="Blue", code="A-1"))

    with pytest.raises(Conflict, match="Another entry has the same value, which must be unique"):
        await add(units, me, Booking(comment="Red", code="A-1"))


async def test_read_only_unit_of_work_refuses_writes(units: SqlUnitsOfWork, me: Owner) -> None:
    await add(units, me, Booking(comment="Blue"))

    async with units.open(me, "read") as uow:
        for statement in (insert(Booking).values(comment="x", version=1), update(Booking).values(comment="x")):
            with pytest.raises(ReadOnly):
                await uow.repository(Bookings).session.execute(statement)
        with pytest.raises(ReadOnly):
            await uow.repository(Bookings).add(Booking(comment="Red"))


async def test_session_does_not_commit_or_roll_back(units: SqlUnitsOfWork, me: Owner) -> None:
    async with units.open(me, "write") as uow:
        mine = uow.repository(Bookings)
        with pytest.raises(RuntimeError, match="The unit of work commits"):
            await mine.add(Booking(comment="Blue"), auto_commit=True)
        with pytest.raises(RuntimeError, match="The unit of work rolls back"):
            await mine.session.rollback()
        with pytest.raises(RuntimeError, match="The unit of work closes"):
            await mine.session.close()
        with pytest.raises(UnscopedStatement):
            async with mine.session.begin_nested():
                await mine.count()
        await mine.session.run_sync(lambda session: session.commit())

    async with units.open(me, "read") as uow:
        assert await uow.repository(Bookings).count() == 0


async def test_stored_bytes_of_entities_count_in_the_quota(units: SqlUnitsOfWork, me: Owner, you: Owner) -> None:
    async with units.open(me, "write") as uow:
        await uow.repository(Bookings).add(Booking(comment="買" * 1000, tags=["x" * 500]))
        written = uow.written
        await uow.commit()
    await add(units, you, Booking(comment="x" * 5000))

    async with units.open(me, "read") as uow:
        measured = await uow.quota_usage.measure_storage()

    assert 3500 + ROW_BYTES < measured <= written < measured + 200


STATEMENTS: dict[str, tuple[Any, list[tuple[Any, ...]]]] = {
    "join": (select(BookingNote.text, Booking.comment).join(BookingNote.booking), [("note", "Blue")]),
    "outer join": (select(Booking.comment, other.comment).outerjoin(other, other.id != Booking.id), [("Blue", None)]),
    "membership": (select(Booking.comment).where(Booking.id.in_(select(BookingNote.booking_id))), [("Blue",)]),
    "relationship condition": (
        select(Booking.comment).where(Booking.notes.any(BookingNote.text == "note")),
        [("Blue",)],
    ),
    "cte": (select(select(bookings.c.comment).cte("mine").c.comment), [("Blue",)]),
    "union": (union_all(select(Booking.comment), select(BookingNote.text)), [("Blue",), ("note",)]),
    "lock": (select(Booking.comment).with_for_update(of=Booking), [("Blue",)]),
    "count": (select(func.count()).select_from(Booking), [(1,)]),
    "update from another table": (
        update(booking_notes)
        .where(booking_notes.c.booking_id == bookings.c.id)
        .values(text=bookings.c.comment)
        .returning(booking_notes.c.text),
        [("Blue",)],
    ),
    "update to a query's value": (
        update(Booking).values(comment=select(BookingNote.text).scalar_subquery()).returning(Booking.comment),
        [("note",)],
    ),
    "delete by a query": (
        delete(booking_notes)
        .where(booking_notes.c.booking_id.in_(select(bookings.c.id)))
        .returning(booking_notes.c.text),
        [("note",)],
    ),
}


@pytest.mark.parametrize(("statement", "expected"), STATEMENTS.values(), ids=STATEMENTS)
async def test_statement_in_the_session_reaches_the_rows_of_the_user(
    units: SqlUnitsOfWork, me: Owner, you: Owner, statement: Any, expected: list[tuple[Any, ...]]
) -> None:
    for owner in (me, you):
        await add(units, owner, Booking(comment="Blue", notes=[BookingNote(text="note")]))

    async with units.open(me, "write") as uow:
        rows = (await uow.repository(Bookings).session.execute(statement)).all()
        await uow.commit()

    assert sorted(tuple(row) for row in rows) == expected
