"""A service whose app asks the user before its tools run, and a client of the user that can ask."""

from collections.abc import AsyncIterator

import pytest

from latchkey.infrastructure.database.sql.engine import create_engine
from latchkey.infrastructure.database.unit_of_work import SqlUnitsOfWork
from tests.apps.guarded import app, orders
from tests.integration.mcp.approvals.calls import Caller, Clock
from tests.integration.mcp.mcp_service import McpService

APPROVAL_TTL_S = 3600


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
async def service(database_url: str, clock: Clock) -> AsyncIterator[McpService]:
    orders.clear()
    engine = create_engine(database_url)
    yield McpService(SqlUnitsOfWork(engine, now=clock.now), apps=[app], approval_ttl_s=APPROVAL_TTL_S)
    await engine.dispose()


@pytest.fixture
async def me(service: McpService) -> AsyncIterator[Caller]:
    async with service.http() as http:
        yield Caller(service, http, service.jwt())
