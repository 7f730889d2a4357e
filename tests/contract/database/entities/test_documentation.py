"""The examples of docs/entities.md run."""

import re
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import MetaData
from sqlalchemy.ext.asyncio import create_async_engine
from sqlalchemy.orm import configure_mappers

from latchkey.app import App
from latchkey.application.dispatcher import Dispatcher
from latchkey.domain.credentials import Owner
from latchkey.domain.errors import Conflict, NotFound
from latchkey.domain.page import Window
from latchkey.infrastructure.database.entity import APP_METADATA
from latchkey.infrastructure.database.sql.engine import create_engine
from latchkey.infrastructure.database.unit_of_work import SqlUnitsOfWork
from latchkey.infrastructure.database.urls import parse
from tests.contract.database.entities.shop import create_tables

PAGE = Path(__file__).parents[4] / "docs/entities.md"
EXAMPLES = dict(re.findall(r"^```python (\w+)\n(.*?)^```$", PAGE.read_text(), re.MULTILINE | re.DOTALL))
BLUE = UUID("019a1f88-468d-77a8-980e-9f4608e1dfbf")


@cache
def module_of(name: str) -> ModuleType:
    """Import an example of the page, and free the names of its tables for other examples."""
    module = sys.modules[f"documented_{name}"] = ModuleType(f"documented_{name}")
    exec(compile(EXAMPLES[name], str(PAGE), "exec"), vars(module))  # noqa: S102 # our own documentation
    configure_mappers()
    for table in (*module.app.schema.entities, *module.app.schema.reference_tables):
        APP_METADATA.remove(table)
    return module


class Example:
    """An example of the page, with its tables in a database."""

    def __init__(self, name: str, url: str) -> None:
        self.module = module_of(name)
        self.app: App = self.module.app
        self.engine = create_engine(url)
        self.units = SqlUnitsOfWork(self.engine, schema=self.app.schema)
        self._dispatcher = Dispatcher(self.units, lambda _call: None)

    async def call(self, owner: Owner, tool: str, *arguments: Any) -> Any:
        return await self._dispatcher.call(owner, getattr(self.module, tool), *arguments)


Open = Callable[[str], Awaitable[Example]]


@pytest.fixture
async def open_example(database_url: str) -> AsyncIterator[Open]:
    examples: list[Example] = []

    async def open_one(name: str) -> Example:
        example = Example(name, database_url)
        examples.append(example)
        schema = example.app.schema
        metadata = MetaData()
        for table in (*schema.reference_tables, *schema.entities):
            table.to_metadata(metadata)
        await create_tables(database_url, metadata)
        return example

    yield open_one
    for example in examples:
        await example.engine.dispose()


async def test_example_of_core_runs(open_example: Open, database_url: str, me: Owner, you: Owner) -> None:
    shop = await open_example("shop")
    engine = create_async_engine(parse(database_url)[0])
    async with engine.begin() as connection:
        await connection.execute(shop.module.bicycles.insert(), [{"id": BLUE, "name": "Blue"}])
    await engine.dispose()

    reservation = await shop.call(me, "reserve", BLUE, 3)
    extended = await shop.call(me, "extend", reservation.id, 4)
    with pytest.raises(Conflict, match="30 days at most"):
        await shop.call(me, "extend", reservation.id, 24)
    with pytest.raises(NotFound, match="There is no such reservation"):
        await shop.call(you, "extend", reservation.id, 1)

    assert (extended.days, extended.version) == (7, 2)
    assert (await shop.call(me, "list_reservations")).items == [extended]
    assert (await shop.call(you, "list_reservations")).items == []
    async with shop.units.open(me, "read") as uow:
        assert await uow.repository(shop.module.Reservations).days_by_bicycle() == {"Blue": 7}


async def test_example_of_the_orm_runs(open_example: Open, me: Owner, you: Owner) -> None:
    trips = await open_example("orm")

    trip = await trips.call(me, "plan_trip", "Coast", ["Harbour", "Lighthouse"])
    renamed = await trips.call(me, "rename_trip", trip.id, "Cliffs")
    with pytest.raises(NotFound, match="There is no such trip"):
        await trips.call(you, "rename_trip", trip.id, "Stolen")

    assert (trip.version, sorted(trip.stops)) == (1, ["Harbour", "Lighthouse"])
    assert (renamed.title, renamed.version, sorted(renamed.stops)) == ("Cliffs", 2, ["Harbour", "Lighthouse"])
    async with trips.units.open(me, "read") as uow:
        assert [item.title for item in (await uow.repository(trips.module.Trips).page(Window())).items] == ["Cliffs"]


def test_examples_are_found() -> None:
    assert EXAMPLES.keys() == {"shop", "orm"}
