"""Waiting for what must come to be true: as short as possible, and never for ever."""

import asyncio
import time
from collections.abc import Awaitable, Callable

PATIENCE_S = 30.0
_PAUSE_S = 0.01


async def eventually(condition: Callable[[], Awaitable[bool]]) -> None:
    """Returns once the condition holds; raises `TimeoutError` if it does not come to that."""
    async with asyncio.timeout(PATIENCE_S):
        while not await condition():  # noqa: ASYNC110  # what is waited for is in another process or on a wire
            await asyncio.sleep(_PAUSE_S)


def eventually_sync(condition: Callable[[], bool]) -> None:
    """The same for tests that drive other processes."""
    deadline = time.monotonic() + PATIENCE_S
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError(condition)
        time.sleep(_PAUSE_S)
