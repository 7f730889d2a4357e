"""A team's app, and variants of it with one fault each. The laws of `latchkey.testing` must find every fault."""

import os
from typing import Annotated, Any
from uuid import UUID

from litestar import Controller, get
from litestar.di import NamedDependency
from litestar.params import QueryParameter
from msgspec import Meta, Struct
from sqlalchemy import Column, String, Uuid, select

from latchkey import (
    ApiRequest,
    App,
    Dispatcher,
    Grant,
    Instant,
    NotFound,
    Page,
    Repository,
    UnitOfWork,
    Window,
    entity_table,
    reference_table,
    tool,
)
from latchkey.domain.credentials import Owner, UserId

FAULT = os.environ.get("SHELF_FAULT", "none")
READ, WRITE = Grant("shelves:read"), Grant("shelves:write")

woods = reference_table("woods", Column("id", Uuid(), primary_key=True), Column("name", String(50), nullable=False))
shelves = entity_table("shelves", Column("label", String(100), nullable=False))
_everything: list[Any] = []


class Shelf(Struct, frozen=True):
    """A shelf."""

    id: UUID
    label: str
    version: int
    created_at: Instant
    updated_at: Instant


class Shelves(Repository[Shelf], table=shelves):
    """The shelves of the user."""

    async def all_rows(self) -> list[Shelf]:
        """Read past the tenant guard, and forget the user."""
        columns = (shelves.c.id, shelves.c.label, shelves.c.version, shelves.c.created_at, shelves.c.updated_at)
        statement: Any = select(*columns).compile(dialect=self._session._statements.dialect)
        rows = await self._session._driver.fetch(str(statement), [])
        return [Shelf(UUID(str(row[0])), row[1], row[2], self.uow.now, self.uow.now) for row in rows]


@tool(WRITE, title="Add a shelf", destructive=False)
async def add_shelf(uow: UnitOfWork, label: Annotated[str, Meta(min_length=1, max_length=100)]) -> Shelf:
    """Add a shelf."""
    shelf = Shelf(uow.new_id(), label, 1, uow.now, uow.now)
    await uow.repository(Shelves).add(shelf)
    _everything.append(shelf)
    return shelf


@tool(READ, title="List the shelves")
async def list_shelves(uow: UnitOfWork) -> Page[Shelf]:
    """List the shelves."""
    repository = uow.repository(Shelves)
    if FAULT == "global state":
        return Page(list(_everything), None)
    if FAULT == "forgotten scope":
        return Page(await repository.all_rows(), None)
    if FAULT == "read that writes":
        await repository.add(Shelf(uow.new_id(), "surprise", 1, uow.now, uow.now))
    return await repository.page(Window(200, None))


@tool(WRITE, title="Remove a shelf", stores=False)
async def remove_shelf(uow: UnitOfWork, shelf_id: UUID) -> Shelf:
    """Remove a shelf."""
    if FAULT == "foreign ids":
        for shelf in _everything:
            if shelf.id == shelf_id:
                return Shelf(shelf.id, shelf.label, 1, uow.now, uow.now)
    repository = uow.repository(Shelves)
    shelf = await repository.get(shelf_id, for_update=True)
    await repository.delete(shelf_id)
    return shelf


class Wood(Struct, frozen=True):
    """A kind of wood, which everybody may know."""

    id: UUID
    name: str


_WOODS = select(woods.c.id, woods.c.name)


@tool(READ, title="Find a wood")
async def find_wood(uow: UnitOfWork, name: str = "", wood_id: UUID | None = None) -> Page[Wood]:
    """List the kinds of wood."""
    rows = await uow.repository(Shelves).fetch(_WOODS)
    return Page([Wood(*row) for row in rows if name in row[1] and wood_id in (None, row[0])], None)


@tool(WRITE, title="Choose a wood")
async def choose_wood(uow: UnitOfWork, wood_id: UUID, name: str) -> Wood:
    """Choose the wood of the next shelf, and name it."""
    for row in await uow.repository(Shelves).fetch(_WOODS):
        if row[0] == wood_id:
            return Wood(row[0], name)
    raise NotFound("There is no such wood.")


class ShelfController(Controller):
    path = "/shelves"

    @get()
    async def list_shelves(self, request: ApiRequest, dispatcher: NamedDependency[Dispatcher]) -> Page[Shelf]:
        """List the shelves."""
        return await dispatcher.call(request.user, list_shelves)


class NamedController(Controller):
    path = "/shelves-of"

    @get()
    async def list_shelves_of(
        self,
        request: ApiRequest,
        dispatcher: NamedDependency[Dispatcher],
        user_id: Annotated[str, QueryParameter(description="Whose.")] = "",
    ) -> Page[Shelf]:
        """List the shelves of somebody."""
        return await dispatcher.call(Owner(UserId(user_id or request.user.user_id)), list_shelves)


app = App(
    name="shelf",
    tools=[add_shelf, list_shelves, remove_shelf, find_wood, choose_wood],
    grants=[READ, WRITE],
    entities=[shelves],
    reference_tables=[woods],
    controllers=[ShelfController, *([NamedController] if FAULT == "named user" else [])],
    migrations="wrong_shelf_migrations",
)
