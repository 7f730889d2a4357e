"""A budget of bytes for responses that this process holds because their clients have not received them yet."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Protocol

from latchkey.domain.errors import Unavailable

MAX_UNSENT_BYTES = 128 * 1024 * 1024
MAX_WAITING_BYTES = 32 * 1024 * 1024
"""For the responses that wait for room: further ones are refused at once, because they use memory while they wait."""
LARGE_BYTES = 64 * 1024
"""Smaller responses are not counted."""
WAIT_S = 2.0
RETRY_AFTER_S = 2


class Connection(Protocol):
    """A connection whose client receives more slowly than the process writes. None is a client without credential."""

    @property
    def unsent_bytes(self) -> int: ...

    user_id: str | None


class ResponseBudget:
    """Divides the budget among users: each may hold as many bytes as are free.

    So one user holds at most half of the budget, and there is always room for another one.
    """

    def __init__(self, limit: int = MAX_UNSENT_BYTES) -> None:
        self.limit = limit
        self._connections: set[Connection] = set()
        self._reserved = Counter[str | None]()
        self._waiting = 0
        self._changes: set[asyncio.Future[None]] = set()

    def add(self, connection: Connection) -> None:
        """Count the unsent bytes of this connection from now on."""
        self._connections.add(connection)

    def remove(self, connection: Connection) -> None:
        """Count the connection no longer."""
        self._connections.discard(connection)
        self._notify()

    @asynccontextmanager
    async def reserve(self, user_id: str | None, size: int) -> AsyncIterator[None]:
        """Hold room for a response until it is handed to the connection, which then counts it.

        Waits up to `WAIT_S`. Raises `Unavailable` if there is no room for the user by then.
        """
        if not self._has_room(user_id, size):
            await self._wait_for_room(user_id, size)
        self._reserved[user_id] += size
        try:
            yield
        finally:
            self._reserved -= Counter({user_id: size})
            self._notify()

    async def _wait_for_room(self, user_id: str | None, size: int) -> None:
        self._waiting += size
        try:
            with suppress(TimeoutError):
                async with asyncio.timeout(WAIT_S):
                    while not self._has_room(user_id, size) and self._waiting <= MAX_WAITING_BYTES:
                        await self._next_change()
            # A client that reads slowly makes room without a change.
            if not self._has_room(user_id, size):
                failure = Unavailable(
                    "Earlier responses have not been received yet: read them or close their connections."
                    " If the request made a change, the change was made."
                )
                failure.retry_after = RETRY_AFTER_S
                raise failure
        finally:
            self._waiting -= size

    async def _next_change(self) -> None:
        """Wait until a connection has sent its bytes or is closed, or a reservation ends."""
        change = asyncio.get_running_loop().create_future()
        self._changes.add(change)
        try:
            await change
        finally:
            self._changes.discard(change)

    def _notify(self) -> None:
        for change in self._changes:
            if not change.done():
                change.set_result(None)

    def _has_room(self, user_id: str | None, size: int) -> bool:
        held = Counter(self._reserved)
        for connection in self._connections:
            held[connection.user_id] += connection.unsent_bytes
        return held[user_id] + size <= self.limit - held.total()


RESPONSES = ResponseBudget()
"""The budget of this process."""
