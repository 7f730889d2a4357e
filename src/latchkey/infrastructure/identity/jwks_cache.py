"""The provider's keys as we hold them: fetched when they are needed, and not oftener than is good."""

import asyncio
import math
from collections.abc import Awaitable, Callable

import structlog
from jwt import PyJWK

from latchkey.domain.errors import Unavailable

_log = structlog.get_logger(__name__)

Fetch = Callable[[], Awaitable[dict[str, PyJWK]]]

LIFE_S = 300
"""How long keys are used before they are fetched again."""
LOOK_S = 30
"""At most once in so long does a key that we lack, or a provider that is down, cause another fetch."""
COLD_S = 1
"""The same while there are no keys at all and every call fails."""


class JwksCache:
    """Keys by their id. One fetch runs at a time; one that fails leaves the keys as they were."""

    def __init__(self, fetch: Fetch, clock: Callable[[], float], renewed: Callable[[], None]) -> None:
        self._fetch = fetch
        self._clock = clock
        self._renewed = renewed
        self._keys: dict[str, PyJWK] = {}
        self._renew_at = math.inf
        self._look_at = -math.inf
        self._fetching: asyncio.Task[None] | None = None

    async def keep_fresh(self) -> None:
        """Fetch the keys again if their life is over. Whoever notices waits; the others use the old ones meanwhile."""
        if self._clock() >= self._renew_at:
            self._renew_at = self._clock() + LOOK_S
            await self._fetched()

    async def get(self, key_id: str) -> PyJWK | None:
        """The key, fetched if we lack it and may look. Raises `Unavailable` if there are no keys at all."""
        if key_id not in self._keys and (self._fetching or self._clock() >= self._look_at):
            await self._looked_for(key_id)
        if not self._keys:
            raise Unavailable("The identity provider's keys cannot be had at the moment: try again shortly.")
        return self._keys.get(key_id)

    async def aclose(self) -> None:
        if self._fetching:
            self._fetching.cancel()
            await asyncio.wait({self._fetching})

    async def _looked_for(self, key_id: str) -> None:
        """A fetch that only filled an empty ring, and did find the key, does not count as a look."""
        was_empty = not self._keys
        if not was_empty and not self._fetching:
            self._look_at = self._clock() + LOOK_S
        await self._fetched()
        if was_empty and key_id not in self._keys:
            self._look_at = self._clock() + (LOOK_S if self._keys else COLD_S)

    async def _fetched(self) -> None:
        """Wait for the fetch that runs, or start one. It outlives whoever waits: others may, too."""
        if self._fetching is None:
            self._fetching = asyncio.create_task(self._fill())
        await asyncio.shield(self._fetching)

    async def _fill(self) -> None:
        try:
            self._keys = await self._fetch()
            self._renew_at = self._clock() + LIFE_S
            self._renewed()
        except Unavailable as failure:
            if self._keys:
                self._look_at = self._clock() + LOOK_S
            _log.warning("identity_keys_not_fetched", reason=repr(failure.__cause__ or failure), kept=len(self._keys))
        finally:
            self._fetching = None
