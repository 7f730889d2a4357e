"""The process that listens: uvicorn with uvloop and httptools."""

import socket
from collections.abc import Callable

import uvicorn
from litestar.types import ASGIApp
from msgspec import Struct
from uvicorn.supervisors import Multiprocess


class Listening(Struct, frozen=True):
    """Where to listen, with how many processes, and how long a process may take to end."""

    host: str
    port: int
    workers: int
    drain_s: int


class _Server(uvicorn.Server):
    """Says when it is ready."""

    def __init__(self, config: uvicorn.Config, announce: Callable[[], None]) -> None:
        super().__init__(config)
        self._announce = announce

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        if self.started:
            self._announce()


def listen(create: Callable[[], ASGIApp], listening: Listening, announce: Callable[[], None]) -> bool:
    """Serve until told to stop, and tell whether it ever started. With several workers, each makes its own `create()`."""
    config = uvicorn.Config(
        create,
        factory=True,
        host=listening.host,
        port=listening.port,
        workers=listening.workers,
        loop="uvloop",
        http="httptools",
        ws="none",
        lifespan="on",
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,
        backlog=4096,
        timeout_keep_alive=75,
        timeout_graceful_shutdown=listening.drain_s,
    )
    if listening.workers == 1:
        server = _Server(config, announce)
        server.run()
        return server.started
    with config.bind_socket() as shared:
        announce()
        Multiprocess(config, sockets=[shared]).run()
    return True
