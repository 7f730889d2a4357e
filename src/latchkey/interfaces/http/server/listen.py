"""Runs the HTTP server: uvicorn with uvloop and httptools, in one process or several."""

import os
import resource
import signal
import socket
from collections.abc import Callable
from contextlib import suppress

import uvicorn
from litestar.types import ASGIApp
from msgspec import Struct
from uvicorn.supervisors import Multiprocess

from latchkey.domain.errors import Unavailable
from latchkey.interfaces.http.server.protocol import HttpProtocol

_BACKLOG = 4096
_MAX_OPEN_FILES = 65_536
_SHUTDOWN_TIMEOUT_S = 10
"""For requests in progress at shutdown. Turns have ended by then."""

_SEND_TIMEOUT_S = 60
"""After this time without progress, the system closes the connection of a client that does not read."""

_HEALTHCHECK_TIMEOUT_S = 60
"""A worker that does not answer its supervisor for this long is restarted. Its imports take a while."""


class ListenAddress(Struct, frozen=True):
    """The address to listen on, and the number of worker processes."""

    host: str
    port: int
    workers: int


class _Server(uvicorn.Server):
    """A server that calls `on_started` when it accepts connections."""

    def __init__(self, config: uvicorn.Config, on_started: Callable[[], None]) -> None:
        super().__init__(config)
        self._on_started = on_started

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        if self.started:
            self._on_started()


class _Supervisor(Multiprocess):
    """Passes SIGHUP on to the worker processes. By default it would replace them, and end their turns."""

    def handle_hup(self) -> None:
        for process in self.processes:
            # The signal would end a process that is not ready for it.
            is_ready = process.wait_until_ready(self.config.timeout_worker_healthcheck, self.should_exit)
            if is_ready and process.pid is not None:
                os.kill(process.pid, signal.SIGHUP)


def listen(
    create: Callable[[], ASGIApp],
    address: ListenAddress,
    on_started: Callable[[], None],
    *,
    reloads: bool = False,
) -> bool:
    """Serve until a termination signal. Return whether the server started. Each worker process calls `create`.

    `reloads` says that the application handles SIGHUP. Until it does, the signal is ignored.

    Raises `Unavailable` if the address cannot be bound.
    """
    config = uvicorn.Config(
        create,
        factory=True,
        workers=address.workers,
        loop="uvloop",
        http=HttpProtocol,
        ws="none",
        lifespan="on",
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,
        backlog=_BACKLOG,
        timeout_keep_alive=75,
        timeout_graceful_shutdown=_SHUTDOWN_TIMEOUT_S,
        timeout_worker_healthcheck=_HEALTHCHECK_TIMEOUT_S,
    )
    _raise_open_file_limit()
    if reloads:
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
    with _bind(address) as listener:
        if address.workers == 1:
            server = _Server(config, on_started)
            # uvicorn raises the signal again after its shutdown, when nothing is left to do.
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
            with suppress(KeyboardInterrupt):
                server.run(sockets=[listener])
            return server.started
        # Connections wait in the backlog until a worker accepts them.
        on_started()
        (_Supervisor if reloads else Multiprocess)(config, sockets=[listener]).run()
    return True


def _bind(address: ListenAddress) -> socket.socket:
    family = socket.AF_INET6 if ":" in address.host else socket.AF_INET
    try:
        listener = socket.create_server((address.host, address.port), family=family, backlog=_BACKLOG)
    except OSError as error:
        # Python adds the address to the system's text.
        reason = (error.strerror or "").partition(" (")[0]
        raise Unavailable(f"Cannot listen on {address.host}:{address.port}: {reason}.") from error
    # Only Linux has this option. Accepted connections inherit it from the listener.
    if timeout := getattr(socket, "TCP_USER_TIMEOUT", None):
        listener.setsockopt(socket.IPPROTO_TCP, timeout, _SEND_TIMEOUT_S * 1000)
    return listener


def _raise_open_file_limit() -> None:
    """Allow more connections than the usual 1,024 files, which idle clients alone could use up."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    limit = _MAX_OPEN_FILES if hard == resource.RLIM_INFINITY else min(_MAX_OPEN_FILES, hard)
    if limit > soft:
        resource.setrlimit(resource.RLIMIT_NOFILE, (limit, hard))
