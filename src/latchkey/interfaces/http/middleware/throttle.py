"""Delays refusals once they are frequent, to slow down clients that guess tokens or flood the service."""

import asyncio
from random import uniform
from time import monotonic

FREE_PER_S = 100.0
"""How many refusals a process sends per second without a delay."""

_DELAY_S = (0.3, 0.9)


class RefusalThrottle:
    """A token bucket of one second for the whole process: a refused client is not authenticated, so it has no key."""

    def __init__(self) -> None:
        self._tokens = FREE_PER_S
        self._updated_at = monotonic()

    async def wait(self) -> None:
        """Wait if the last second had too many refusals. Delays vary, so that the clients do not return together."""
        now = monotonic()
        self._tokens = min(FREE_PER_S, self._tokens + (now - self._updated_at) * FREE_PER_S)
        self._updated_at = now
        if self._tokens >= 1:
            self._tokens -= 1
        else:
            await asyncio.sleep(uniform(*_DELAY_S))  # noqa: S311 - the delay is no secret
