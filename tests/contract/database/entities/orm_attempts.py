"""Attempts to reach the rows of another user through the ORM: with each method of the repository, and of the session.

Each is called with a repository of one user and a booking of another user. It returns what it has read.
"""

from collections.abc import Awaitable, Callable
from typing import Any

from sqlalchemy import (
    bindparam,
    column,
    delete,
    exists,
    func,
    insert,
    literal_column,
    select,
    table,
    text,
    union_all,
    update,
)
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.orm import aliased, joinedload, selectinload, subqueryload

from latchkey.infrastructure.database.schema import tasks
from tests.contract.database.entities.orm_shop import Booking, BookingNote, Bookings, booking_notes, bookings

Attempt = Callable[[Bookings, Booking], Awaitable[Any]]

HELPERS = {
    "check_health",
    "check_not_found",
    "get_id_attribute_value",
    "get_primary_key_value",
    "has_primary_key_values",
    "set_id_attribute_value",
}
"""Methods of the repository that read no table."""


def stolen(yours: Booking, **values: Any) -> Booking:
    """A new object with the key of the other user's booking."""
    return Booking(**{"user_id": yours.user_id, "id": yours.id, "comment": "stolen", "version": 1, **values})


def same_id(yours: Booking) -> Booking:
    """A new object with the id of the other user's booking and no user."""
    return Booking(id=yours.id, comment="stolen")


HARMLESS = {"update 1", "update_many 1", "upsert 1", "upsert_many 1"}
"""Attempts that no lock need stop: an id without a user is one of this user."""

NOT_ON_SQLITE = {"session lateral", "session delete in a cte"}

SECRET: Any = select(Booking).where(Booking.comment == "secret")

METHODS: dict[str, list[Attempt]] = {
    "add": [lambda mine, yours: mine.add(Booking(user_id=yours.user_id, comment="planted"))],
    "add_many": [lambda mine, yours: mine.add_many([Booking(user_id=yours.user_id, comment="planted")])],
    "count": [
        lambda mine, yours: mine.count(Booking.id == yours.id),
        lambda mine, yours: mine.count(user_id=yours.user_id),
        lambda mine, _yours: mine.count(statement=SECRET),
    ],
    "delete": [
        lambda mine, yours: mine.delete(yours.id),
        lambda mine, yours: mine.delete((yours.user_id, yours.id)),
    ],
    "delete_many": [
        lambda mine, yours: mine.delete_many([yours.id]),
        lambda mine, yours: mine.delete_many([(yours.user_id, yours.id)]),
        lambda mine, yours: mine.delete_many([yours.comment], id_attribute="comment"),
    ],
    "delete_where": [
        lambda mine, yours: mine.delete_where(id=yours.id),
        lambda mine, yours: mine.delete_where(Booking.user_id == yours.user_id),
        lambda mine, _yours: mine.delete_where(sanity_check=False),
    ],
    "exists": [lambda mine, yours: mine.exists(id=yours.id)],
    "get": [
        lambda mine, yours: mine.get(yours.id),
        lambda mine, yours: mine.get((yours.user_id, yours.id)),
        lambda mine, yours: mine.get(yours.id, with_for_update=True),
    ],
    "get_and_update": [lambda mine, yours: mine.get_and_update(match_fields=["id"], id=yours.id, comment="stolen")],
    "get_many": [
        lambda mine, _yours: mine.get_many(),
        lambda mine, yours: mine.get_many(Booking.user_id == yours.user_id),
    ],
    "get_many_and_count": [lambda mine, yours: mine.get_many_and_count(Booking.id == yours.id)],
    "get_one": [lambda mine, yours: mine.get_one(id=yours.id)],
    "get_one_or_none": [lambda mine, yours: mine.get_one_or_none(id=yours.id)],
    "get_or_upsert": [lambda mine, yours: mine.get_or_upsert(match_fields=["id"], id=yours.id, comment="stolen")],
    "list": [lambda mine, _yours: mine.list()],
    "list_and_count": [
        lambda mine, yours: mine.list_and_count(Booking.id == yours.id),
        lambda mine, yours: mine.list_and_count(Booking.id == yours.id, count_with_window_function=False),
    ],
    "page": [lambda mine, _yours: mine.page(), lambda mine, yours: mine.page(user_id=yours.user_id)],
    "update": [
        lambda mine, yours: mine.update(stolen(yours)),
        lambda mine, yours: mine.update(same_id(yours)),
    ],
    "update_many": [
        lambda mine, yours: mine.update_many([stolen(yours)]),
        lambda mine, yours: mine.update_many([same_id(yours)]),
    ],
    "upsert": [
        lambda mine, yours: mine.upsert(stolen(yours)),
        lambda mine, yours: mine.upsert(same_id(yours)),
    ],
    "upsert_many": [
        lambda mine, yours: mine.upsert_many([stolen(yours)]),
        lambda mine, yours: mine.upsert_many([same_id(yours)]),
    ],
}


async def read(mine: Bookings, statement: Any, *parameters: Any) -> list[Any]:
    return [tuple(row) for row in (await mine.session.execute(statement, *parameters)).unique().all()]


async def write(mine: Bookings, statement: Any, *parameters: Any) -> None:
    await mine.session.execute(statement, *parameters)


async def move(mine: Bookings, yours: Booking) -> None:
    """Give a booking to the other user."""
    booking = await mine.add(Booking(comment="bare"))
    booking.user_id = yours.user_id
    await mine.session.flush()


async def move_by(mine: Bookings, statement: Any, *parameters: Any) -> None:
    """Give a booking without notes to the other user, with a statement."""
    await mine.add(Booking(comment="bare"))
    await write(mine, statement.where(bookings.c.comment == "bare"), *parameters)


async def move_by_upsert(mine: Bookings, yours: Booking) -> None:
    booking = await mine.add(Booking(comment="bare"))
    row = {**row_of(yours), "user_id": booking.user_id, "id": booking.id}
    upsert = upsert_of(mine)(bookings).values(**row)
    await write(mine, upsert.on_conflict_do_update(index_elements=["user_id", "id"], set_={"user_id": yours.user_id}))


async def attach(mine: Bookings, yours: Booking) -> None:
    """Attach a note to the other user's booking, through the relationship."""
    note = BookingNote(text="planted", booking=yours)
    mine.session.add(note)
    await mine.session.flush()


async def flush_loaded(mine: Bookings, yours: Booking) -> None:
    """Change an object that was loaded elsewhere, as an object that this session has stored."""
    yours.comment = "stolen"
    mine.session.add(yours)
    await mine.session.flush()


async def remove_loaded(mine: Bookings, yours: Booking) -> None:
    await mine.session.delete(yours)
    await mine.session.flush()


async def lazy_load(mine: Bookings, yours: Booking) -> Any:
    mine.session.add(yours)
    mine.session.expire(yours, ["notes"])
    return await yours.awaitable_attrs.notes


async def refresh(mine: Bookings, yours: Booking) -> str:
    mine.session.add(yours)
    mine.session.expire(yours)
    await mine.session.refresh(yours)
    return yours.comment


async def bulk(mine: Bookings, function: Callable[[Any], None]) -> None:
    await mine.session.run_sync(function)


async def driver_sql(mine: Bookings, sql: str) -> list[Any]:
    connection = await mine.session.connection()
    return [tuple(row) for row in (await connection.exec_driver_sql(sql)).all()]


def upsert_of(mine: Bookings) -> Any:
    return postgresql.insert if mine.session.get_bind().dialect.name == "postgresql" else sqlite.insert


other = aliased(Booking)
SUBQUERY = "(SELECT comment FROM bookings WHERE comment = 'secret')"
ANY = select(Booking.comment)
CORE = select(bookings.c.comment)

SESSION: dict[str, Attempt] = {
    "get": lambda mine, yours: mine.session.get(Booking, (yours.user_id, yours.id)),
    "merge": lambda mine, yours: mine.session.merge(stolen(yours)),
    "add": attach,
    "change of the user": move,
    "change of an object of another session": flush_loaded,
    "delete of an object of another session": remove_loaded,
    "lazy load": lazy_load,
    "refresh": refresh,
    "select": lambda mine, _yours: read(mine, ANY),
    "select of an alias": lambda mine, _yours: read(mine, select(other.comment)),
    "select in Core": lambda mine, _yours: read(mine, CORE),
    "select of an alias in Core": lambda mine, _yours: read(mine, select(bookings.alias("b").c.comment)),
    "select of a built-in table": lambda mine, _yours: read(mine, select(tasks.c.title)),
    "select for update": lambda mine, _yours: read(mine, ANY.with_for_update()),
    "select for update of a table": lambda mine, _yours: read(mine, ANY.with_for_update(of=Booking)),
    "count": lambda mine, yours: mine.session.scalar(
        select(func.count()).select_from(Booking).where(Booking.user_id == yours.user_id)
    ),
    "exists": lambda mine, yours: mine.session.scalar(select(exists(ANY.where(Booking.id == yours.id)))),
    "scalar subquery": lambda mine, yours: read(mine, select(ANY.where(Booking.id == yours.id).scalar_subquery())),
    "subquery": lambda mine, _yours: read(mine, select(ANY.subquery().c.comment)),
    "cte": lambda mine, _yours: read(mine, select(CORE.cte("any").c.comment)),
    "union": lambda mine, _yours: read(mine, union_all(ANY, CORE)),
    "join": lambda mine, _yours: read(mine, select(BookingNote.text, Booking.comment).join(BookingNote.booking)),
    "join with an alias": lambda mine, _yours: read(
        mine, select(Booking.comment, other.comment).join(other, other.user_id != Booking.user_id)
    ),
    "outer join": lambda mine, _yours: read(
        mine, select(Booking.comment, other.comment).outerjoin(other, other.user_id != Booking.user_id)
    ),
    "lateral": lambda mine, _yours: read(mine, select(CORE.lateral("l").c.comment)),
    "membership": lambda mine, _yours: read(
        mine, select(BookingNote.text).where(BookingNote.booking_id.in_(select(Booking.id)))
    ),
    "relationship condition": lambda mine, _yours: read(
        mine, select(BookingNote.text).where(BookingNote.booking.has(Booking.comment == "secret"))
    ),
    "joined load": lambda mine, _yours: read(mine, select(Booking).options(joinedload(Booking.notes))),
    "select-in load": lambda mine, _yours: read(mine, select(Booking).options(selectinload(Booking.notes))),
    "subquery load": lambda mine, _yours: read(mine, select(Booking).options(subqueryload(Booking.notes))),
    "select by another user's parameter": lambda mine, yours: read(
        mine, ANY.where(Booking.user_id == bindparam("user_id")), {"user_id": yours.user_id}
    ),
    "select by the guard's parameter": lambda mine, yours: read(
        mine, ANY.where(Booking.user_id == bindparam("scope_user")), {"scope_user": yours.user_id}
    ),
    "text": lambda mine, _yours: read(mine, text("SELECT comment FROM bookings")),
    "text for an entity": lambda mine, _yours: read(
        mine, select(Booking).from_statement(text("SELECT * FROM bookings"))
    ),
    "text with columns": lambda mine, _yours: read(
        mine, text("SELECT comment FROM bookings").columns(bookings.c.comment)
    ),
    "text as a column": lambda mine, _yours: read(mine, select(text(SUBQUERY))),
    "literal column": lambda mine, _yours: read(mine, select(literal_column(SUBQUERY))),
    "prefix": lambda mine, _yours: read(mine, ANY.prefix_with(f"{SUBQUERY},")),
    "suffix": lambda mine, _yours: read(mine, ANY.suffix_with("UNION SELECT comment FROM bookings")),
    "hint": lambda mine, _yours: read(mine, ANY.with_statement_hint("UNION SELECT comment FROM bookings")),
    "table by its name alone": lambda mine, _yours: read(
        mine, select(column("comment")).select_from(table("bookings", column("comment")))
    ),
    "driver's SQL": lambda mine, _yours: driver_sql(mine, "SELECT comment FROM bookings"),
    "driver's UPDATE": lambda mine, _yours: driver_sql(mine, "UPDATE bookings SET comment = 'x' RETURNING comment"),
    "insert": lambda mine, yours: write(mine, insert(Booking), [row_of(yours)]),
    "insert of values": lambda mine, yours: write(mine, insert(Booking).values(**row_of(yours))),
    "insert of several values": lambda mine, yours: write(mine, insert(Booking).values([row_of(yours)])),
    "insert in Core": lambda mine, yours: write(mine, insert(bookings).values(**row_of(yours))),
    "insert in Core with parameters": lambda mine, yours: write(mine, insert(bookings), [row_of(yours)]),
    "insert of several values in Core": lambda mine, yours: write(mine, insert(bookings).values([row_of(yours)])),
    "insert of tuples in Core": lambda mine, yours: write(
        mine, insert(bookings).values([tuple(row_of(yours).values())])
    ),
    "insert from a query": lambda mine, _yours: write(
        mine,
        insert(booking_notes).from_select(
            ["user_id", "id", "booking_id", "text", "version", "created_at", "updated_at"],
            select(*(bookings.c[name] for name in ("user_id", "id", "id", "comment")), 1, func.now(), func.now()),
        ),
    ),
    "upsert": lambda mine, yours: write(
        mine,
        upsert_of(mine)(bookings)
        .values(**row_of(yours))
        .on_conflict_do_update(index_elements=["user_id", "id"], set_={"comment": "stolen"}),
    ),
    "upsert that moves": move_by_upsert,
    "update": lambda mine, _yours: write(mine, update(Booking).values(comment="stolen")),
    "update by key": lambda mine, yours: write(
        mine, update(Booking), [{"user_id": yours.user_id, "id": yours.id, "version": 1, "comment": "stolen"}]
    ),
    "update in Core": lambda mine, yours: write(
        mine, update(bookings).where(bookings.c.id == yours.id).values(comment="stolen")
    ),
    "update of the user": lambda mine, yours: move_by(mine, update(bookings).values(user_id=yours.user_id)),
    "update of the user by a parameter": lambda mine, yours: move_by(
        mine, update(bookings), {"user_id": yours.user_id}
    ),
    "update from another table": lambda mine, _yours: read(
        mine,
        update(booking_notes)
        .where(booking_notes.c.text != bookings.c.comment)
        .values(text=bookings.c.comment)
        .returning(booking_notes.c.text),
    ),
    "update to a query's value": lambda mine, yours: read(
        mine,
        update(bookings)
        .values(comment=select(other.comment).where(other.id == yours.id).scalar_subquery())
        .returning(bookings.c.comment),
    ),
    "delete": lambda mine, _yours: write(mine, delete(Booking)),
    "delete in Core": lambda mine, yours: write(mine, delete(bookings).where(bookings.c.id == yours.id)),
    "delete by another table": lambda mine, _yours: read(
        mine,
        delete(booking_notes)
        .where(booking_notes.c.booking_id.in_(select(bookings.c.id)))
        .returning(booking_notes.c.text),
    ),
    "delete in a cte": lambda mine, _yours: read(
        mine, select(delete(bookings).returning(bookings.c.comment).cte("gone").c.comment)
    ),
    "insert for an entity": lambda mine, yours: read(
        mine, select(Booking).from_statement(insert(Booking).values(**row_of(yours)).returning(Booking))
    ),
    "bulk save": lambda mine, yours: bulk(mine, lambda s: s.bulk_save_objects([Booking(**row_of(yours))])),
    "bulk insert": lambda mine, yours: bulk(mine, lambda s: s.bulk_insert_mappings(Booking, [row_of(yours)])),
    "bulk update": lambda mine, yours: bulk(
        mine,
        lambda s: s.bulk_update_mappings(
            Booking, [{"user_id": yours.user_id, "id": yours.id, "version": 1, "comment": "stolen"}]
        ),
    ),
    "query": lambda mine, _yours: mine.session.run_sync(
        lambda s: [tuple(row) for row in s.query(Booking.comment).all()]
    ),
    "query of an update": lambda mine, _yours: bulk(mine, lambda s: s.query(Booking).update({"comment": "stolen"})),
    "query of a delete": lambda mine, _yours: bulk(mine, lambda s: s.query(Booking).delete()),
}


def row_of(yours: Booking) -> dict[str, Any]:
    """A row for the other user, with an id that is free."""
    return {
        "user_id": yours.user_id,
        "id": yours.id.__class__(int=yours.id.int ^ 1),
        "comment": "planted",
        "code": None,
        "tags": None,
        "version": 1,
        "created_at": yours.created_at,
        "updated_at": yours.updated_at,
    }
