"""Delays requests without a verified credential once they are frequent: guessing tokens, scanning and flooding."""

import asyncio
from random import uniform
from time import monotonic

from latchkey.domain.errors import Exhausted

FREE_PER_S = 100.0
"""How many such requests a process serves per second without a delay."""

DELAY_S = (0.3, 0.9)

PROBE_DELAY_S = (0.2, 0.5)
"""Shorter than the timeout of a probe, which is one second by default in Kubernetes."""

MAX_WAITING = 500
"""How many requests wait before they are served. Further ones are refused, because each uses memory."""


class AnonymousThrottle:
    """A token bucket of one second for the whole process: a client that is not authenticated has no key."""

    def __init__(self, delay_s: tuple[float, float] = DELAY_S) -> None:
        self._delay_s = delay_s
        self._tokens = FREE_PER_S
        self._updated_at = monotonic()
        self._waiting = 0

    async def wait(self) -> None:
        """Wait if the last second had too many requests. Delays vary, so that the clients do not return together."""
        now = monotonic()
        self._tokens = min(FREE_PER_S, self._tokens + (now - self._updated_at) * FREE_PER_S)
        self._updated_at = now
        if self._tokens >= 1:
            self._tokens -= 1
            return
        self._waiting += 1
        try:
            await asyncio.sleep(uniform(*self._delay_s))  # noqa: S311 - the delay is no secret
        finally:
            self._waiting -= 1

    async def wait_or_refuse(self) -> None:
        """Wait as `wait` does. Raises `Exhausted` instead if too many requests are waiting already."""
        if self._waiting >= MAX_WAITING:
            raise Exhausted("Too many requests without a valid credential: try again later.", retry_after=1)
        await self.wait()
