"""The house on each database in turn, and each way into it."""

from collections.abc import AsyncIterator

import pytest

from latchkey.infrastructure.database.sql.engine import create_engine
from latchkey.infrastructure.database.unit_of_work import SqlUnitsOfWork
from tests.integration.mcp.house import WAYS, House, Way
from tests.integration.mcp.wire import ERAS


@pytest.fixture
async def house(database_url: str) -> AsyncIterator[House]:
    engine = create_engine(database_url)
    yield House(SqlUnitsOfWork(engine))
    await engine.dispose()


@pytest.fixture(params=WAYS)
def way(request: pytest.FixtureRequest) -> Way:
    return WAYS[request.param]


@pytest.fixture(params=ERAS)
def era(request: pytest.FixtureRequest) -> str:
    return str(request.param)
