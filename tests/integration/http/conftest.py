"""Services shared by the tests of this package; each test creates its own users."""

from asyncio import Event
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
import pytest_asyncio

from latchkey.application.turns import subscription
from tests.fakes.model_server import ModelServer
from tests.support.service import ApiUser, Service, model_variables, run_service, settings_for


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def model_service(shared_database_url: str, shared_model: ModelServer) -> AsyncIterator[Service]:
    """A service whose agent calls the scripted model."""
    async with run_service(settings_for(shared_database_url, **model_variables(shared_model))) as service:
        yield service


@pytest.fixture(scope="module")
def assistants_file(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The file with the assistants that the test module declares as `ASSISTANTS`."""
    path = tmp_path_factory.mktemp("assistants") / "assistants.toml"
    path.write_text(request.module.ASSISTANTS)
    return path


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def assistants_service(
    shared_database_url: str, shared_model: ModelServer, assistants_file: Path
) -> AsyncIterator[Service]:
    """A service with the assistants of `assistants_file`."""
    variables = {**model_variables(shared_model), "LATCHKEY_ASSISTANTS": str(assistants_file)}
    async with run_service(settings_for(shared_database_url, **variables)) as service:
        yield service


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def replicas(shared_database_url: str, shared_model: ModelServer) -> AsyncIterator[tuple[Service, Service]]:
    """Two replicas on sockets; with SQLite, which only one process may use, twice the same replica.

    Their leases are long, so that a stream ends because of an event and not because a lease has expired.
    """
    settings = settings_for(
        shared_database_url, LATCHKEY_TURN_LEASE_S="600", LATCHKEY_TURN_MAX_CALLS="500", **model_variables(shared_model)
    )
    async with run_service(settings, on_socket=True) as first:
        if shared_database_url.startswith("sqlite"):
            yield first, first
        else:
            async with run_service(settings, on_socket=True) as second:
                yield first, second


@pytest.fixture
def ada_elsewhere(replicas: tuple[Service, Service], ada: ApiUser) -> ApiUser:
    """The user `ada` at the second replica."""
    return replicas[1].user(ada.user_id)


@pytest.fixture
def without_polling(monkeypatch: pytest.MonkeyPatch) -> None:
    """Subscribers do not poll the event log: they learn of events only from the event bus."""
    monkeypatch.setattr(subscription, "KEEPALIVE_S", 600.0)
    monkeypatch.setattr(subscription, "LEASE_CHECK_S", 600.0)


@pytest.fixture
def gate() -> Iterator[Event]:
    """An event for which the model waits; set at the end of the test, so that a failing test ends too."""
    event = Event()
    yield event
    event.set()
