"""Slows refusals down once there are many: whoever guesses, or floods without a right token, waits for each answer."""

import asyncio
from random import uniform
from time import monotonic

FREE_PER_S = 100.0
"""So many refusals of a process are answered at once; nobody's mistakes come that often."""

_PAUSE_S = (0.3, 0.9)


class RefusalThrottle:
    """A token bucket of one second for the whole process: who is refused has not said who they are."""

    def __init__(self) -> None:
        self._free = FREE_PER_S
        self._at = monotonic()

    async def wait(self) -> None:
        """Wait, if there were too many in the last second. The waits differ, so that a crowd is dispersed."""
        now = monotonic()
        self._free = min(FREE_PER_S, self._free + (now - self._at) * FREE_PER_S)
        self._at = now
        if self._free >= 1:
            self._free -= 1
        else:
            await asyncio.sleep(uniform(*_PAUSE_S))  # noqa: S311 - nobody gains by guessing it
