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

FAULT = os.environ.get("BOX_FAULT", "none")
READ, WRITE = Grant("boxes:read"), Grant("boxes:write")

woods = reference_table("woods", Column("id", Uuid(), primary_key=True), Column("name", String(50), nullable=False))
boxes = entity_table("boxes", Column("label", String(100), nullable=False))
_everything: list[Any] = []


class Box(Struct, frozen=True):
    """A box."""

    id: UUID
    label: str
    version: int
    created_at: Instant
    updated_at: Instant


class Boxes(Repository[Box], table=boxes):
    """The boxes of the user."""

    async def all_rows(self) -> list[Box]:
        """Read past the tenant guard, and forget the user."""
        columns = (boxes.c.id, boxes.c.label, boxes.c.version, boxes.c.created_at, boxes.c.updated_at)
        statement: Any = select(*columns).compile(dialect=self._session._statements.dialect)
        rows = await self._session._driver.fetch(str(statement), [])
        return [Box(UUID(str(row[0])), row[1], row[2], self.uow.now, self.uow.now) for row in rows]


@tool(WRITE, title="Add a box", destructive=False)
async def add_box(uow: UnitOfWork, label: Annotated[str, Meta(min_length=1, max_length=100)]) -> Box:
    """Add a box."""
    box = Box(uow.new_id(), label, 1, uow.now, uow.now)
    await uow.repository(Boxes).add(box)
    _everything.append(box)
    return box


@tool(READ, title="List the boxes")
async def list_boxes(uow: UnitOfWork) -> Page[Box]:
    """List the boxes."""
    repository = uow.repository(Boxes)
    if FAULT == "global state":
        return Page(list(_everything), None)
    if FAULT == "forgotten scope":
        return Page(await repository.all_rows(), None)
    if FAULT == "read that writes":
        await repository.add(Box(uow.new_id(), "surprise", 1, uow.now, uow.now))
    return await repository.page(Window(200, None))


@tool(WRITE, title="Remove a box", stores=False)
async def remove_box(uow: UnitOfWork, box_id: UUID) -> Box:
    """Remove a box."""
    if FAULT == "foreign ids":
        for box in _everything:
            if box.id == box_id:
                return Box(box.id, box.label, 1, uow.now, uow.now)
    repository = uow.repository(Boxes)
    box = await repository.get(box_id, for_update=True)
    await repository.delete(box_id)
    return box


class Wood(Struct, frozen=True):
    """A kind of wood, which everybody may know."""

    id: UUID
    name: str


_WOODS = select(woods.c.id, woods.c.name)


@tool(READ, title="Find a wood")
async def find_wood(uow: UnitOfWork, name: str = "", wood_id: UUID | None = None) -> Page[Wood]:
    """List the kinds of wood."""
    rows = await uow.repository(Boxes).fetch(_WOODS)
    return Page([Wood(*row) for row in rows if name in row[1] and wood_id in (None, row[0])], None)


@tool(WRITE, title="Choose a wood")
async def choose_wood(uow: UnitOfWork, wood_id: UUID, name: str) -> Wood:
    """Choose the wood of the next box, and name it."""
    for row in await uow.repository(Boxes).fetch(_WOODS):
        if row[0] == wood_id:
            return Wood(row[0], name)
    raise NotFound("There is no such wood.")


class BoxController(Controller):
    path = "/boxes"

    @get()
    async def list_boxes(self, request: ApiRequest, dispatcher: NamedDependency[Dispatcher]) -> Page[Box]:
        """List the boxes."""
        return await dispatcher.call(request.user, list_boxes)


class NamedController(Controller):
    path = "/boxes-of"

    @get()
    async def list_boxes_of(
        self,
        request: ApiRequest,
        dispatcher: NamedDependency[Dispatcher],
        user_id: Annotated[str, QueryParameter(description="Whose.")] = "",
    ) -> Page[Box]:
        """List the boxes of a user."""
        return await dispatcher.call(Owner(UserId(user_id or request.user.user_id)), list_boxes)


app = App(
    name="box",
    tools=[add_box, list_boxes, remove_box, find_wood, choose_wood],
    grants=[READ, WRITE],
    entities=[boxes],
    reference_tables=[woods],
    controllers=[BoxController, *([NamedController] if FAULT == "named user" else [])],
    migrations="wrong_boxes_migrations",
)
