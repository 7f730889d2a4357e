"""The process that listens: uvicorn with uvloop and httptools."""

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
from latchkey.interfaces.http.server.protocol import Connection

_BACKLOG = 4096
_FILES = 65_536
_GRACE_S = 10
"""For requests to be answered: turns have ended by then."""

_UNREAD_S = 60
"""Whoever has taken nothing for so long of what is sent to them is given up."""

_STARTUP_S = 60
"""A worker that does not answer its supervisor for that long is replaced; importing everything may take a while."""


class ListenAddress(Struct, frozen=True):
    """Where to listen, and with how many processes."""

    host: str
    port: int
    workers: int


class _Server(uvicorn.Server):
    """Says when it is ready."""

    def __init__(self, config: uvicorn.Config, announce: Callable[[], None]) -> None:
        super().__init__(config)
        self._announce = announce

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        if self.started:
            self._announce()


def listen(create: Callable[[], ASGIApp], address: ListenAddress, announce: Callable[[], None]) -> bool:
    """Serve until told to stop, and tell whether it ever started. Each worker makes its own `create()`.

    Raises `Unavailable` if the address cannot be had.
    """
    config = uvicorn.Config(
        create,
        factory=True,
        workers=address.workers,
        loop="uvloop",
        http=Connection,
        ws="none",
        lifespan="on",
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,
        backlog=_BACKLOG,
        timeout_keep_alive=75,
        timeout_graceful_shutdown=_GRACE_S,
        timeout_worker_healthcheck=_STARTUP_S,
    )
    _open_as_many_files_as_allowed()
    with _bound(address) as bound:
        if address.workers == 1:
            server = _Server(config, announce)
            # uvicorn raises the signal anew once it has done what it asked for; then there is nothing left to do.
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
            with suppress(KeyboardInterrupt):
                server.run(sockets=[bound])
            return server.started
        # Who connects before a worker accepts waits in the backlog.
        announce()
        Multiprocess(config, sockets=[bound]).run()
    return True


def _bound(address: ListenAddress) -> socket.socket:
    family = socket.AF_INET6 if ":" in address.host else socket.AF_INET
    try:
        bound = socket.create_server((address.host, address.port), family=family, backlog=_BACKLOG)
    except OSError as error:
        raise Unavailable(f"Cannot listen on {address.host}:{address.port}: {error.strerror}.") from error
    # Only Linux can give up a client that takes no more of its answer; connections have what the listener has.
    if timeout := getattr(socket, "TCP_USER_TIMEOUT", None):
        bound.setsockopt(socket.IPPROTO_TCP, timeout, _UNREAD_S * 1000)
    return bound


def _open_as_many_files_as_allowed() -> None:
    """Each connection is one, and the usual 1,024 are fewer than clients that connect and say nothing can hold."""
    now, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = _FILES if most == resource.RLIM_INFINITY else min(_FILES, most)
    if wanted > now:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, most))
