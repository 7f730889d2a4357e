"""No method of the ORM reaches the rows of another user: with both locks, and with each of them alone.

On SQLite the guard is the only lock. On PostgreSQL row-level security must hold without the guard.
"""

import inspect
import warnings
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from typing import Any

import pytest
from advanced_alchemy.exceptions import NotFoundError
from sqlalchemy import delete, select
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.sql.compiler import SQLCompiler

from latchkey.domain.credentials import Owner
from latchkey.domain.errors import Failure
from latchkey.domain.page import Page
from latchkey.infrastructure.database import entity_repository, orm_session
from latchkey.infrastructure.database.entity_model import Entity
from latchkey.infrastructure.database.entity_repository import EntityRepository
from latchkey.infrastructure.database.sql import orm_guard
from latchkey.infrastructure.database.sql.engine import create_engine
from latchkey.infrastructure.database.sql.session import owned_by_user
from latchkey.infrastructure.database.sql.tenant_guard import UnscopedStatement
from latchkey.infrastructure.database.unit_of_work import SqlUnitsOfWork
from tests.builders import a_task
from tests.contract.database.entities.orm_attempts import HARMLESS, HELPERS, METHODS, NOT_ON_SQLITE, SESSION, Attempt
from tests.contract.database.entities.orm_shop import (
    SCHEMA,
    Base,
    Booking,
    BookingNote,
    Bookings,
    booking_notes,
    bookings,
)
from tests.contract.database.entities.shop import create_tables

ATTEMPTS: dict[str, Attempt] = {
    **{f"{name} {nth}": attempt for name, attempts in METHODS.items() for nth, attempt in enumerate(attempts)},
    **{f"session {name}": attempt for name, attempt in SESSION.items()},
}


ERRORS = (Failure, NotFoundError, SQLAlchemyError, UnscopedStatement)


class Without(SQLCompiler):
    """Compiles what was written."""


def without_pinned_reads(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(orm_guard, "_Pinning", Without)


def without_pinned_writes(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(orm_guard, "_owned", lambda statement: statement)


def without_owner_of_values(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(orm_guard, "_with_owner", lambda _insert, parameters, _session: parameters)


def without_owner_of_objects(patch: pytest.MonkeyPatch) -> None:
    def set_owner(uow: Any, entity: Any) -> None:
        entity.user_id = entity.user_id or uow.scope.user_id

    for module in (orm_session, entity_repository):
        patch.setattr(module, "set_owner", set_owner)


def without_guard(patch: pytest.MonkeyPatch) -> None:
    without_pinned_reads(patch)
    without_owner_of_objects(patch)
    patch.setattr(orm_guard, "_pin", lambda _c, statement, multiparams, params, _o: (statement, multiparams, params))
    patch.setattr(orm_guard, "_before_cursor_execute", lambda *_arguments: None)


Mutation = Callable[[pytest.MonkeyPatch], None]

MUTATIONS: dict[str, tuple[Mutation, set[str]]] = {
    "reads are not pinned": (without_pinned_reads, {"get 0", "page 0", "session select", "session lazy load"}),
    "writes are not pinned": (without_pinned_writes, {"delete_many 0", "session update", "session bulk update"}),
    "values are not checked": (without_owner_of_values, {"session insert in Core", "session upsert"}),
    "nothing is checked": (without_guard, ATTEMPTS.keys() - HARMLESS - NOT_ON_SQLITE),
}
"""The mutations, each with some of the attempts that it lets succeed."""


class Shop:
    """A database in which both users have a booking with a note, and a task."""

    def __init__(self, url: str, me: Owner, you: Owner) -> None:
        self.me, self.you = me, you
        self._url = url
        self._engine = create_engine(url)
        self.units = SqlUnitsOfWork(self._engine, schema=SCHEMA)
        self.yours: Booking

    async def create(self) -> None:
        await create_tables(self._url, Base.metadata)
        for owner, comment in ((self.me, "mine"), (self.you, "secret")):
            async with self.units.open(owner, "write") as uow:
                await uow.tasks.add(a_task(f"{comment} task"))
                await uow.commit()

    async def reset(self) -> None:
        """Let each user have one booking with a note."""
        for owner, comment in ((self.me, "mine"), (self.you, "secret")):
            async with self.units.open(owner, "write") as uow:
                for table in (booking_notes, bookings):
                    await uow.session.execute(delete(table).where(owned_by_user(table)))
                self.yours = Booking(comment=comment, notes=[BookingNote(text=f"{comment} note")])
                await uow.repository(Bookings).add(self.yours)
                await uow.commit()
                uow.repository(Bookings).session.expunge_all()

    async def aclose(self) -> None:
        await self._engine.dispose()

    async def rows_of(self, owner: Owner) -> list[Any]:
        """Read without the ORM."""
        async with self.units.open(owner, "read") as uow:
            return [
                await uow.session.fetch(select(table).where(owned_by_user(table)).order_by(table.c.id))
                for table in (bookings, booking_notes)
            ]

    async def leak(self, attempt: Attempt) -> str:
        """Return what the attempt has read or changed of the other user's rows."""
        await self.reset()
        before = await self.rows_of(self.you)
        got: Any = None
        # An error is as good as an empty result, if nothing has happened. Deprecated methods are attempted, too.
        with suppress(*ERRORS), warnings.catch_warnings(action="ignore", category=DeprecationWarning):
            async with self.units.open(self.me, "write") as uow:
                got = await attempt(uow.repository(Bookings), self.yours)
                is_read = self._is_of_other(got)
                await uow.commit()
                return f"read {got}" if is_read else await self._changes(before)
        return f"read {got}" if self._is_of_other(got) else await self._changes(before)

    async def _changes(self, before: list[Any]) -> str:
        after = await self.rows_of(self.you)
        return "" if after == before else f"changed to {after}"

    def _is_of_other(self, got: Any) -> bool:
        if isinstance(got, Page):
            return self._is_of_other(got.items)
        if isinstance(got, Entity):
            return self._is_of_other([value for value in vars(got).values() if isinstance(value, str | list | Entity)])
        if isinstance(got, list | tuple):
            # The flag of `get_or_upsert` says that a row of this user is new.
            return any(self._is_of_other(item) for item in got if not isinstance(item, bool))
        if isinstance(got, bool | int):
            return bool(got)
        return isinstance(got, str) and "secret" in got


@pytest.fixture
async def shop(database_url: str, me: Owner, you: Owner) -> AsyncIterator[Shop]:
    shop = Shop(database_url, me, you)
    await shop.create()
    yield shop
    await shop.aclose()


def test_every_public_method_of_the_repository_is_attempted() -> None:
    """A method that a release of the library adds needs attempts of its own."""
    public = {name for name, _ in inspect.getmembers(EntityRepository, callable) if not name.startswith("_")}

    assert public == METHODS.keys() | HELPERS


async def test_isolation_of_entities_between_users(shop: Shop) -> None:
    leaks = {name: await shop.leak(attempt) for name, attempt in ATTEMPTS.items()}

    assert {name: leak for name, leak in leaks.items() if leak} == {}


async def test_isolation_of_entities_by_row_level_security_alone(
    postgresql_url: str, me: Owner, you: Owner, monkeypatch: pytest.MonkeyPatch
) -> None:
    without_guard(monkeypatch)
    shop = Shop(postgresql_url, me, you)
    await shop.create()
    leaks = {name: await shop.leak(attempt) for name, attempt in ATTEMPTS.items()}
    await shop.aclose()

    assert {name: leak for name, leak in leaks.items() if leak} == {}


@pytest.mark.parametrize(("mutation", "expected"), MUTATIONS.values(), ids=MUTATIONS)
async def test_attempts_find_a_missing_guard(
    sqlite_url: str, me: Owner, you: Owner, mutation: Mutation, expected: set[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """On SQLite, where there is no other lock."""
    mutation(monkeypatch)
    shop = Shop(sqlite_url, me, you)
    await shop.create()
    leaks = {name: await shop.leak(ATTEMPTS[name]) for name in expected}
    await shop.aclose()

    assert [name for name, leak in leaks.items() if not leak] == []
