"""Undo of what the tools of an app changed in its entities, with SQLAlchemy Core and with the ORM."""

from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import msgspec
import pytest
from msgspec.structs import replace
from sqlalchemy import bindparam, delete, select, update

from latchkey.application.access import requires
from latchkey.application.dispatcher import Dispatcher
from latchkey.domain.credentials import Grant, Owner, UserId
from latchkey.domain.page import Window
from latchkey.domain.ports import UnitOfWork
from latchkey.domain.undo import NotUndoable
from latchkey.infrastructure.database.schema import tool_calls
from latchkey.infrastructure.database.sql.session import insert_for_user, owned_by_user
from tests.contract.database.entities.orm_shop import Booking, BookingNote, BookingNotes, Bookings
from tests.contract.database.entities.shop import (
    Reservation,
    Reservations,
    a_reservation,
    reservation_notes,
    reservations,
)
from tests.contract.database.undone_turn import UndoneTurn

WRITE = Grant("reservations:write")
STARTS = datetime(2027, 1, 2, 3, 4, 5, 6, tzinfo=UTC)
_RAISE_BICYCLES = (
    update(reservations)
    .where(owned_by_user(reservations), reservations.c.comment == bindparam("with_comment"))
    .values(bicycle_id=reservations.c.bicycle_id + 1, version=reservations.c.version + 1)
)
_DELETE_WITH_COMMENT = delete(reservations).where(
    owned_by_user(reservations), reservations.c.comment == bindparam("with_comment")
)
_ADD_NOTE = insert_for_user(reservation_notes)
_CHANGES = select(tool_calls.c.changes).where(owned_by_user(tool_calls))
_SET_CHANGES = update(tool_calls).where(owned_by_user(tool_calls))


@pytest.fixture
async def turn(dispatcher: Dispatcher) -> UndoneTurn:
    return await UndoneTurn.start(dispatcher, Owner(UserId("ada")), grants=[WRITE])


def of_tool(function: Callable[[UnitOfWork], Awaitable[Any]]) -> Any:
    """A use case that does this."""

    async def change(uow: UnitOfWork) -> int:
        await function(uow)
        return 1

    return requires(WRITE, stores=True)(change)


async def stored(turn: UndoneTurn) -> dict[UUID, Any]:
    """All reservations and bookings without the values that an undo changes itself."""

    async def read(uow: UnitOfWork) -> dict[UUID, Any]:
        rows: dict[UUID, Any] = {}
        for reservation in (await uow.repository(Reservations).page(Window(200))).items:
            rows[reservation.id] = replace(reservation, version=0, updated_at=reservation.created_at)
        for booking in (await uow.repository(Bookings).page(Window(200))).items:
            rows[booking.id] = (booking.comment, booking.code, booking.tags, booking.created_at)
        for note in (await uow.repository(BookingNotes).page(Window(200))).items:
            rows[note.id] = (note.text, note.booking_id, note.created_at)
        return rows

    return await turn.own(requires(Grant("reservations:read"))(read))


async def undone(turn: UndoneTurn, *functions: Callable[[UnitOfWork], Awaitable[Any]]) -> None:
    """Call these as tools, and undo the turn: everything is as it was before."""
    before = await stored(turn)
    for function in functions:
        await turn.call(of_tool(function))
    await turn.finish()
    assert await stored(turn) != before
    assert (await turn.read()).can_undo
    await turn.undo()
    assert await stored(turn) == before


async def refused(turn: UndoneTurn, function: Callable[[UnitOfWork], Awaitable[Any]]) -> list[str]:
    """Call this as a tool, and try to undo the turn: return the reasons why it cannot be."""
    await turn.call(of_tool(function))
    await turn.finish()
    after = await stored(turn)
    with pytest.raises(NotUndoable) as error:
        await turn.undo()
    assert await stored(turn) == after
    conflicts: Any = error.value.members["conflicts"]
    return [conflict.reason for conflict in conflicts]


async def _forget_code(uow: Any) -> None:
    """Make the recorded change that of a release whose reservations had no code."""
    ((changes,),) = await uow.session.fetch(_CHANGES)
    (change,) = msgspec.json.decode(changes)
    del change["before"]["code"]
    await uow.session.execute(_SET_CHANGES, changes=msgspec.json.encode([change]).decode())


async def add(turn: UndoneTurn, *entities: Reservation) -> None:
    """Add entities as the user."""

    async def add_all(uow: UnitOfWork) -> None:
        for entity in entities:
            await uow.repository(Reservations).add(entity)

    await turn.own(of_tool(add_all))


async def test_undo_of_all_methods_of_a_core_repository(turn: UndoneTurn) -> None:
    kept, gone = a_reservation(code="one", starts_at=STARTS), a_reservation("Red", code="two")
    await add(turn, kept, gone)

    async def change(uow: UnitOfWork) -> None:
        repository = uow.repository(Reservations)
        changed = await repository.update(replace(await repository.get(kept.id), code=None, starts_at=None))
        await repository.delete(gone.id)
        await repository.add(a_reservation("New", code="two"))
        await repository.update(replace(changed, code="one", comment="Changed"))

    await undone(turn, change)


async def test_undo_of_statements_on_many_rows(turn: UndoneTurn) -> None:
    await add(turn, *(a_reservation("Same", bicycle_id=number) for number in range(3)), a_reservation("Other"))

    async def change(uow: UnitOfWork) -> None:
        assert await uow.repository(Reservations).execute(_RAISE_BICYCLES, with_comment="Same") == 3
        await uow.repository(Reservations).defer(_RAISE_BICYCLES, with_comment="Other")

    async def remove(uow: UnitOfWork) -> None:
        assert await uow.repository(Reservations).execute(_DELETE_WITH_COMMENT, with_comment="Same") == 3

    async def nothing(uow: UnitOfWork) -> None:
        assert await uow.repository(Reservations).execute(_DELETE_WITH_COMMENT, with_comment="None") == 0

    await undone(turn, change, remove, nothing)


async def test_undo_of_a_deletion_that_removed_other_rows_is_a_conflict(turn: UndoneTurn) -> None:
    parent, childless = a_reservation(), a_reservation("Red")
    await add(turn, parent, childless)

    async def add_note(uow: UnitOfWork) -> None:
        times = {"version": 1, "created_at": uow.now, "updated_at": uow.now}
        await uow.repository(Reservations).defer(
            _ADD_NOTE, id=uow.new_id(), reservation_id=parent.id, text="x", **times
        )

    async def remove(uow: UnitOfWork) -> None:
        await uow.repository(Reservations).delete(parent.id)

    async def remove_childless(uow: UnitOfWork) -> None:
        await uow.repository(Reservations).delete(childless.id)

    await undone(turn, remove_childless)
    await turn.own(of_tool(add_note))
    second = await UndoneTurn.start(turn.dispatcher, turn.owner, turn.conversation_id, [WRITE])
    assert await refused(second, remove) == ["not-recorded"]


async def test_undo_of_an_addition_that_is_used_meanwhile_is_a_conflict(turn: UndoneTurn) -> None:
    parent = a_reservation()

    async def add_parent(uow: UnitOfWork) -> None:
        await uow.repository(Reservations).add(parent)

    async def add_note(uow: UnitOfWork) -> None:
        times = {"version": 1, "created_at": uow.now, "updated_at": uow.now}
        await uow.repository(Reservations).defer(
            _ADD_NOTE, id=uow.new_id(), reservation_id=parent.id, text="x", **times
        )

    await turn.call(of_tool(add_parent))
    await turn.own(of_tool(add_note))
    assert await refused(turn, add_note) == ["in-use"]


async def test_undo_whose_unique_value_is_taken_meanwhile_is_a_conflict(turn: UndoneTurn) -> None:
    entity = a_reservation(code="one")
    await add(turn, entity)

    async def remove(uow: UnitOfWork) -> None:
        await uow.repository(Reservations).delete(entity.id)

    await turn.call(of_tool(remove))
    await add(turn, a_reservation("Other", code="one"))

    async def nothing(uow: UnitOfWork) -> None:
        del uow

    assert await refused(turn, nothing) == ["constraint"]


async def test_undo_of_a_deletion_of_what_exists_again_is_a_conflict(turn: UndoneTurn) -> None:
    entity = a_reservation()
    await add(turn, entity)

    async def remove(uow: UnitOfWork) -> None:
        await uow.repository(Reservations).delete(entity.id)

    async def nothing(uow: UnitOfWork) -> None:
        del uow

    await turn.call(of_tool(remove))
    await add(turn, entity)

    assert await refused(turn, nothing) == ["exists"]


async def test_undo_of_deletions_before_and_after_a_column_was_added(turn: UndoneTurn) -> None:
    """The first deletion is recorded without the column, the second one with it."""
    old, new = a_reservation("Old"), a_reservation("New", code="new")
    await add(turn, old, new)
    before = await stored(turn)

    async def remove_old(uow: UnitOfWork) -> None:
        await uow.repository(Reservations).delete(old.id)

    async def remove_new(uow: UnitOfWork) -> None:
        await uow.repository(Reservations).delete(new.id)

    await turn.call(of_tool(remove_old))
    await turn.finish()
    await turn.own(of_tool(_forget_code))
    await turn.undo()
    second = await UndoneTurn.start(turn.dispatcher, turn.owner, turn.conversation_id, [WRITE])
    await undone(second, remove_new)
    assert await stored(turn) == before


async def test_undo_of_orm_objects(turn: UndoneTurn) -> None:
    async def prepare(uow: UnitOfWork) -> None:
        await uow.repository(Bookings).add(Booking(comment="Blue", code="one", tags=["a"]))
        await uow.repository(Bookings).add(Booking(comment="Red", code="two"))

    async def change(uow: UnitOfWork) -> None:
        first, second = sorted((await uow.repository(Bookings).page()).items, key=lambda booking: booking.comment)
        first.code, first.tags = None, ["b", "c"]
        await uow.repository(Bookings).update(first)
        await uow.repository(Bookings).delete(second.id)
        added = await uow.repository(Bookings).add(Booking(comment="New", code="one"))
        await uow.repository(BookingNotes).add(BookingNote(booking_id=added.id, text="Note"))

    async def change_again(uow: UnitOfWork) -> None:
        for booking in (await uow.repository(Bookings).page()).items:
            booking.comment += "!"

    await turn.own(of_tool(prepare))
    await undone(turn, change, change_again)


async def test_undo_of_an_orm_cascade(turn: UndoneTurn) -> None:
    async def prepare(uow: UnitOfWork) -> None:
        booking = await uow.repository(Bookings).add(Booking(comment="Blue"))
        await uow.repository(BookingNotes).add(BookingNote(booking_id=booking.id, text="Note"))

    async def remove(uow: UnitOfWork) -> None:
        (booking,) = (await uow.repository(Bookings).page()).items
        await booking.awaitable_attrs.notes
        await uow.repository(Bookings).session.delete(booking)

    await turn.own(of_tool(prepare))
    await undone(turn, remove)


async def test_undo_of_a_bulk_statement_of_the_orm_is_a_conflict(turn: UndoneTurn) -> None:
    async def prepare(uow: UnitOfWork) -> None:
        await uow.repository(Bookings).add(Booking(comment="Blue"))

    async def rename(uow: UnitOfWork) -> None:
        await uow.repository(Bookings).session.execute(update(Booking).values(comment="Red"))

    await turn.own(of_tool(prepare))
    assert await refused(turn, rename) == ["not-recorded"]
