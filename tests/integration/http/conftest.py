"""One service on each kind of database, shared by all tests here: each brings people whom nobody has met before."""

from asyncio import Event
from collections.abc import AsyncIterator, Iterator

import pytest
import pytest_asyncio

from latchkey.application.turns import subscription as watching
from tests.fakes.model_server import ModelServer
from tests.support.service import Service, model_variables, run_service, settings_for


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def thinking(shared_database_url: str, shared_model: ModelServer) -> AsyncIterator[Service]:
    """A service that asks the scripted model."""
    async with run_service(settings_for(shared_database_url, **model_variables(shared_model))) as service:
        yield service


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def replicas(shared_database_url: str, shared_model: ModelServer) -> AsyncIterator[tuple[Service, Service]]:
    """Two that listen on sockets; on SQLite, which one process has to itself, twice the same.

    Their leases are long: what is heard in time is heard because it was told, not because a lease was looked after.
    """
    settings = settings_for(
        shared_database_url, LATCHKEY_TURN_LEASE_S="600", LATCHKEY_TURN_MAX_CALLS="500", **model_variables(shared_model)
    )
    async with run_service(settings, on_socket=True) as one:
        if shared_database_url.startswith("sqlite"):
            yield one, one
        else:
            async with run_service(settings, on_socket=True) as other:
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
