"""One service on each kind of database, shared by all tests here: each brings people whom nobody has met before."""

import shutil
from asyncio import Event
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from uuid import uuid4

import pytest
import pytest_asyncio

from latchkey.application import watching
from tests.fakes.model_server import ModelServer, model_server
from tests.integration.http.listening import listening_replica
from tests.integration.http.service import Person, Service, asking, serving, settings_for
from tests.postgresql import PostgreSQL


@pytest.fixture(scope="session")
def shared_sqlite_url(sqlite_template: Path, tmp_path_factory: pytest.TempPathFactory) -> str:
    return f"sqlite+aiosqlite:///{shutil.copy(sqlite_template, tmp_path_factory.mktemp('shared') / 'latchkey.db')}"


@pytest.fixture(scope="session")
def shared_postgresql_url(postgresql_server: PostgreSQL, postgresql_template: str) -> Iterator[str]:
    name = f"latchkey_test_{uuid4().hex[:12]}"
    yield postgresql_server.create_database(name, postgresql_template)
    postgresql_server.drop_database(name)


@pytest.fixture(scope="session", params=["sqlite", "postgresql"])
def shared_database_url(request: pytest.FixtureRequest) -> str:
    url: str = request.getfixturevalue(f"shared_{request.param}_url")
    return url


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def service(shared_database_url: str) -> AsyncIterator[Service]:
    async with serving(settings_for(shared_database_url)) as service:
        yield service


@pytest.fixture
def ada(service: Service) -> Person:
    return service.person()


@pytest.fixture
def bob(service: Service) -> Person:
    """Somebody else."""
    return service.person()


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def shared_model() -> AsyncIterator[ModelServer]:
    async with model_server() as model:
        yield model


@pytest.fixture
def model(shared_model: ModelServer) -> ModelServer:
    """A scripted model that has been asked nothing yet."""
    shared_model.script.clear()
    shared_model.requests.clear()
    return shared_model


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def thinking(shared_database_url: str, shared_model: ModelServer) -> AsyncIterator[Service]:
    """A service that asks the scripted model."""
    async with serving(settings_for(shared_database_url, **asking(shared_model))) as service:
        yield service


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def replicas(shared_database_url: str, shared_model: ModelServer) -> AsyncIterator[tuple[Service, Service]]:
    """Two that listen on sockets; on SQLite, which one process has to itself, twice the same.

    Their leases are long: what is heard in time is heard because it was told, not because a lease was looked after.
    """
    settings = settings_for(shared_database_url, LATCHKEY_TURN_LEASE_S="600", **asking(shared_model))
    async with listening_replica(settings) as one:
        if shared_database_url.startswith("sqlite"):
            yield one, one
        else:
            async with listening_replica(settings) as other:
                yield one, other


@pytest.fixture
def told_not_polled(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody looks into a log because it has been quiet for long: what is heard was told."""
    monkeypatch.setattr(watching, "PATIENCE_S", 600.0)
    monkeypatch.setattr(watching, "QUIET_S", 600.0)


@pytest.fixture
def held() -> Iterator[Event]:
    """What a model waits for that is not let go; at the end of the test it is, so that one that fails ends too."""
    event = Event()
    yield event
    event.set()
