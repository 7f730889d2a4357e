"""The MCP service on each database, each kind of client, and each protocol version."""

from collections.abc import AsyncIterator

import pytest

from latchkey.infrastructure.database.sql.engine import create_engine
from latchkey.infrastructure.database.unit_of_work import SqlUnitsOfWork
from latchkey.testing.postgresql import PostgreSQL
from tests.integration.mcp.jsonrpc import PROTOCOLS
from tests.integration.mcp.mcp_service import CLIENTS, McpService, OpenClient


@pytest.fixture
def postgresql_url(postgresql_server: PostgreSQL, emptied_postgresql_name: str) -> str:
    """An empty database. It is the same for all tests, because these are many, and none changes the schema."""
    postgresql_server.empty_database(emptied_postgresql_name)
    return postgresql_server.url(emptied_postgresql_name)


@pytest.fixture
async def service(database_url: str) -> AsyncIterator[McpService]:
    engine = create_engine(database_url)
    yield McpService(SqlUnitsOfWork(engine))
    await engine.dispose()


@pytest.fixture(params=CLIENTS)
def open_client(request: pytest.FixtureRequest) -> OpenClient:
    return CLIENTS[request.param]


@pytest.fixture(params=PROTOCOLS)
def protocol(request: pytest.FixtureRequest) -> str:
    return str(request.param)
