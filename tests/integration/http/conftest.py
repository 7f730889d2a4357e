"""One service on each kind of database, shared by all tests here: each brings people whom nobody has met before."""

from asyncio import Event
from collections.abc import AsyncIterator, Iterator

import pytest
import pytest_asyncio

from latchkey.application.turns import subscription as watching
from tests.fakes.model_server import ModelServer, model_server
from tests.integration.http.listening import listening_replica
from tests.integration.http.service import Person, Service, asking, serving, settings_for


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
    settings = settings_for(
        shared_database_url, LATCHKEY_TURN_LEASE_S="600", LATCHKEY_TURN_MAX_CALLS="500", **asking(shared_model)
    )
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
