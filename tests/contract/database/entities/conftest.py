"""The contract suite of an app's repositories, on a database with the app's tables."""

from collections.abc import AsyncIterator

import pytest

from latchkey.application.dispatcher import Dispatcher
from latchkey.infrastructure.database.app_schema import AppSchema
from latchkey.infrastructure.database.sql.engine import create_engine
from latchkey.infrastructure.database.unit_of_work import SqlUnitsOfWork
from tests.contract.database.entities import orm_shop, shop
from tests.contract.database.entities.shop import create_tables

SCHEMA = AppSchema(
    entities=shop.SCHEMA.entities + orm_shop.SCHEMA.entities, reference_tables=shop.SCHEMA.reference_tables
)


@pytest.fixture
async def units(database_url: str) -> AsyncIterator[SqlUnitsOfWork]:
    await create_tables(database_url)
    await create_tables(database_url, orm_shop.Base.metadata)
    engine = create_engine(database_url)
    yield SqlUnitsOfWork(engine, schema=SCHEMA)
    await engine.dispose()


@pytest.fixture
def dispatcher(units: SqlUnitsOfWork) -> Dispatcher:
    return Dispatcher(units, lambda _call: None)
