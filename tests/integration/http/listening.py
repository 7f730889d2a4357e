"""A service on a real socket: what a client sees there is what the network has carried."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager

import httpx2
import uvicorn

from latchkey.config import Settings
from latchkey.interfaces.http.server.protocol import Connection
from tests.integration.http.published import check
from tests.integration.http.service import Service, serving
from tests.polling import TIMEOUT_S, wait_until


class _Server(uvicorn.Server):
    """Leaves the signals of the test run to the test run."""

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


@asynccontextmanager
async def listening(service: Service) -> AsyncIterator[int]:
    """The port of loopback at which a server serves the service, until all that it was asked has ended."""
    server = _Server(uvicorn.Config(service.asgi, port=0, http=Connection, ws="none", lifespan="off", log_config=None))
    running = asyncio.create_task(server.serve())
    await wait_until(lambda: _has_started(server))
    yield server.servers[0].sockets[0].getsockname()[1]
    server.should_exit = True
    await running


@asynccontextmanager
async def reached_by_socket(service: Service) -> AsyncIterator[Service]:
    """The same service, whose clients reach it over a socket."""
    async with (
        listening(service) as port,
        httpx2.AsyncClient(
            base_url=f"http://127.0.0.1:{port}",
            event_hooks={"response": [check]},
            timeout=TIMEOUT_S,
            limits=httpx2.Limits(max_connections=None),
        ) as client,
    ):
        yield Service(service.asgi, service.settings, client)


@asynccontextmanager
async def listening_replica(settings: Settings) -> AsyncIterator[Service]:
    """A replica of its own, from its start until it has stopped, on a socket."""
    async with serving(settings) as service, reached_by_socket(service) as reached:
        yield reached


async def _has_started(server: uvicorn.Server) -> bool:
    return server.started
