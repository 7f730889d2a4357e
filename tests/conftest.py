"""Fixtures shared by all packages: databases copied from a migrated template, and one served application on each."""

import shutil
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from uuid import uuid4

import pytest
import pytest_asyncio

from latchkey.infrastructure.database.migrations import upgrade
from latchkey.testing.postgresql import PostgreSQL, postgresql
from tests.fakes.model_server import ModelServer, model_server
from tests.pgbouncer import pgbouncer
from tests.support.operations import ASKING
from tests.support.service import ApiUser, Service, run_service, settings_for


@pytest.fixture(scope="session")
def postgresql_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PostgreSQL]:
    with postgresql(tmp_path_factory.mktemp("postgresql") / "log") as server:
        yield server


@pytest.fixture(scope="session")
def postgresql_template(postgresql_server: PostgreSQL) -> Iterator[str]:
    """The name of a migrated database from which the tests' databases are copied."""
    name = _new_name()
    upgrade(postgresql_server.create_database(name))
    yield name
    postgresql_server.drop_database(name)


@pytest.fixture
def empty_postgresql_url(postgresql_server: PostgreSQL) -> Iterator[str]:
    name = _new_name()
    yield postgresql_server.create_database(name)
    postgresql_server.drop_database(name)


@pytest.fixture
def postgresql_url(postgresql_server: PostgreSQL, postgresql_template: str) -> Iterator[str]:
    name = _new_name()
    yield postgresql_server.create_database(name, postgresql_template)
    postgresql_server.drop_database(name)


@pytest.fixture(scope="session")
def emptied_postgresql_name(postgresql_server: PostgreSQL, postgresql_template: str) -> Iterator[str]:
    """The name of a migrated database for packages that empty it before each test."""
    name = _new_name()
    postgresql_server.create_database(name, postgresql_template)
    yield name
    postgresql_server.drop_database(name)


@pytest.fixture(scope="session")
def pgbouncer_server(postgresql_server: PostgreSQL, tmp_path_factory: pytest.TempPathFactory) -> Iterator[PostgreSQL]:
    with pgbouncer(postgresql_server, tmp_path_factory.mktemp("pgbouncer") / "log") as server:
        yield server


@pytest.fixture
def pgbouncer_url(pgbouncer_server: PostgreSQL, postgresql_url: str) -> str:
    """The URL of the `postgresql_url` database through PgBouncer."""
    return pgbouncer_server.url(postgresql_url.rpartition("/")[2])


@pytest.fixture(scope="session")
def sqlite_template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("sqlite") / "template.db"
    upgrade(_sqlite_url(path))
    return path


@pytest.fixture
def empty_sqlite_url(tmp_path: Path) -> str:
    return _sqlite_url(tmp_path / "latchkey.db")


@pytest.fixture
def sqlite_url(sqlite_template: Path, tmp_path: Path) -> str:
    return _sqlite_url(Path(shutil.copy(sqlite_template, tmp_path / "latchkey.db")))


@pytest.fixture(params=["sqlite", "postgresql"])
def database_url(request: pytest.FixtureRequest) -> str:
    """A migrated database, on SQLite and on PostgreSQL."""
    url: str = request.getfixturevalue(f"{request.param}_url")
    return url


@pytest.fixture(scope="session")
def shared_postgresql_url(postgresql_server: PostgreSQL, postgresql_template: str) -> Iterator[str]:
    name = _new_name()
    yield postgresql_server.create_database(name, postgresql_template)
    postgresql_server.drop_database(name)


@pytest.fixture(scope="session")
def shared_sqlite_url(sqlite_template: Path, tmp_path_factory: pytest.TempPathFactory) -> str:
    return _sqlite_url(Path(shutil.copy(sqlite_template, tmp_path_factory.mktemp("shared") / "latchkey.db")))


@pytest.fixture(scope="session", params=["sqlite", "postgresql"])
def shared_database_url(request: pytest.FixtureRequest) -> str:
    """One migrated database per session, on SQLite and on PostgreSQL, for tests that create their own users."""
    url: str = request.getfixturevalue(f"shared_{request.param}_url")
    return url


@pytest.fixture(params=["sqlite", "postgresql"])
def empty_database_url(request: pytest.FixtureRequest) -> str:
    """A database without tables, on SQLite and on PostgreSQL."""
    url: str = request.getfixturevalue(f"empty_{request.param}_url")
    return url


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def service(shared_database_url: str, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Service]:
    """One served application per session on each database, with the rehearsal agent. Each test creates its users."""
    assistants = tmp_path_factory.mktemp("assistants") / "assistants.toml"
    assistants.write_text(f'[assistant.{ASKING}]\ntools = ["remember"]\napprove = ["remember"]\n')
    async with run_service(settings_for(shared_database_url, LATCHKEY_ASSISTANTS=str(assistants))) as service:
        yield service


@pytest.fixture
def ada(service: Service) -> ApiUser:
    return service.user()


@pytest.fixture
def bob(service: Service) -> ApiUser:
    """Another user."""
    return service.user()


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def shared_model() -> AsyncIterator[ModelServer]:
    async with model_server() as model:
        yield model


@pytest.fixture
def model(shared_model: ModelServer) -> ModelServer:
    """The scripted model server, with an empty script and no recorded requests."""
    shared_model.script.clear()
    shared_model.requests.clear()
    return shared_model


def _sqlite_url(path: Path) -> str:
    return f"sqlite+aiosqlite:///{path}"


def _new_name() -> str:
    return f"latchkey_test_{uuid4().hex[:12]}"
