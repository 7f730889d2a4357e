"""Fixtures that serve the app on SQLite and on PostgreSQL."""

from collections.abc import AsyncIterator, Iterator, Mapping
from typing import Any
from uuid import uuid4

import pytest
import pytest_asyncio

from latchkey.bootstrap.registry import read_app_schema
from latchkey.config import Settings
from latchkey.infrastructure.database.app_schema import AppSchema
from latchkey.infrastructure.database.migrations import upgrade
from latchkey.testing.plugin import app_under_test
from latchkey.testing.postgresql import PostgreSQL, postgresql
from latchkey.testing.service import Service, User, serve

_SECRET = "a secret for the tests, not for a service"


@pytest.fixture(scope="session")
def latchkey_app(request: pytest.FixtureRequest) -> str:
    """The app under test: `--latchkey-app`, else LATCHKEY_APP, else `[tool.latchkey]` of pyproject.toml."""
    return str(app_under_test(request.config))


@pytest.fixture(scope="session")
def latchkey_schema(latchkey_app: str) -> AppSchema:
    """The tables of the app."""
    return read_app_schema(Settings(app=latchkey_app))


@pytest.fixture(scope="session")
def latchkey_postgresql(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PostgreSQL]:
    """A PostgreSQL server: that of TEST_DATABASE_URL, else a temporary one; the tests are skipped without any."""
    try:
        with postgresql(tmp_path_factory.mktemp("latchkey-postgresql") / "log") as server:
            yield server
    except RuntimeError as error:
        pytest.skip(str(error))


@pytest.fixture(scope="session", params=["sqlite", "postgresql"])
def latchkey_database_url(
    request: pytest.FixtureRequest, latchkey_schema: AppSchema, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[str]:
    """A database with the newest tables, on SQLite and on PostgreSQL."""
    if request.param == "sqlite":
        url = f"sqlite+aiosqlite:///{tmp_path_factory.mktemp('latchkey') / 'latchkey.db'}"
        upgrade(url, schema=latchkey_schema)
        yield url
        return
    server: PostgreSQL = request.getfixturevalue("latchkey_postgresql")
    name = f"latchkey_test_{uuid4().hex[:12]}"
    url = server.create_database(name)
    upgrade(url, schema=latchkey_schema)
    yield url
    server.drop_database(name)


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def latchkey_service(latchkey_app: str, latchkey_database_url: str) -> AsyncIterator[Service]:
    """The app, served with the rehearsal agent."""
    settings = Settings.read(
        {
            "LATCHKEY_APP": latchkey_app,
            "LATCHKEY_DATABASE_URL": latchkey_database_url,
            "LATCHKEY_AUTH_SECRET": _SECRET,
            "LATCHKEY_AGENT": "rehearsal",
            "LATCHKEY_REQUESTS_PER_MINUTE": "1000000",
        }
    )
    async with serve(settings) as service:
        yield service


@pytest.fixture
def latchkey_user(latchkey_service: Service) -> User:
    """A new user of the app."""
    return latchkey_service.new_user()


@pytest.fixture
def latchkey_other_user(latchkey_service: Service) -> User:
    """Another new user of the app."""
    return latchkey_service.new_user()


@pytest.fixture
def latchkey_examples() -> Mapping[str, Mapping[str, Any]]:
    """Arguments by the name of the tool or operation, where those made from its schema are refused. Override it."""
    return {}
