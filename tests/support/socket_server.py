"""An ASGI application behind uvicorn on a real socket, with the HTTP protocol class of `latchkey serve`."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Any

import uvicorn

from latchkey.interfaces.http.server.protocol import HttpProtocol
from tests.polling import wait_until


class _Server(uvicorn.Server):
    """Installs no signal handlers: the signals belong to the test run."""

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


@asynccontextmanager
async def serve_on_socket(asgi: Any) -> AsyncIterator[int]:
    """Serve the application on a free loopback port and yield the port; at the end wait for open requests."""
    server = _Server(uvicorn.Config(asgi, port=0, http=HttpProtocol, ws="none", lifespan="off", log_config=None))
    running = asyncio.create_task(server.serve())
    await wait_until(lambda: _has_started(server))
    yield server.servers[0].sockets[0].getsockname()[1]
    server.should_exit = True
    await running


async def _has_started(server: uvicorn.Server) -> bool:
    return server.started
