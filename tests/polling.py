"""Waits for a condition by polling, with a timeout."""

import asyncio
import time
from collections.abc import Awaitable, Callable

TIMEOUT_S = 30.0
_PAUSE_S = 0.01


async def wait_until(condition: Callable[[], Awaitable[bool]]) -> None:
    """Return once the condition holds. Raises `TimeoutError` after `TIMEOUT_S`."""
    async with asyncio.timeout(TIMEOUT_S):
        while not await condition():  # noqa: ASYNC110  # the condition depends on another process or on the network
            await asyncio.sleep(_PAUSE_S)


def wait_until_sync(condition: Callable[[], bool]) -> None:
    """`wait_until` for synchronous tests."""
    deadline = time.monotonic() + TIMEOUT_S
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError(condition)
        time.sleep(_PAUSE_S)
