"""Identity by an identity provider that publishes its keys as a JWKS: verification, key cache and key rotation."""

import asyncio
import math
import time
from collections.abc import Awaitable, Callable

import structlog
from jwt import PyJWK

from latchkey.domain.credentials import UserId
from latchkey.domain.errors import Unauthenticated, Unavailable
from latchkey.infrastructure.identity.jwks_document import ALGORITHMS, JwksDocument
from latchkey.infrastructure.identity.jwt_verification import (
    ClaimRules,
    Claims,
    VerifiedTokenCache,
    read_key_id,
    verify_signature,
)

_log = structlog.get_logger(__name__)

KEY_TTL_S = 300
"""The time after which the keys are fetched again."""
MIN_FETCH_INTERVAL_S = 30
"""The minimum time between two fetches caused by an unknown key id or by a provider that does not answer."""
EMPTY_FETCH_INTERVAL_S = 1
"""The same while the cache is empty, when no request can be authenticated."""


class JwksIdentity:
    """The `Identity` port for JWTs signed with EdDSA, ES256 or RS256.

    `now` is the time of the tokens in seconds since the epoch; `clock`, which is monotonic, that of the key cache.
    """

    def __init__(
        self,
        url: str,
        issuer: str,
        audience: str,
        *,
        now: Callable[[], float] = time.time,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._rules = ClaimRules(issuer, audience, now)
        self._verified_tokens = VerifiedTokenCache()
        self._document = JwksDocument(url)
        # Clearing on each refresh makes sure that no token of a withdrawn key stays verified.
        self._keys = JwksCache(self._document.fetch, clock, self._verified_tokens.clear)

    async def authenticate(self, bearer: str, *, audience: str | None = None) -> UserId:
        await self._keys.refresh_if_stale()
        claims = self._verified_tokens.get(bearer) or await self._verify(bearer)
        return self._rules.validate(claims, audience)

    def timezone_of(self, bearer: str) -> str | None:
        return self._verified_tokens.timezone_of(bearer)

    def claims_of(self, bearer: str) -> tuple[tuple[str, str], ...]:
        return self._verified_tokens.kept_claims(bearer)

    def keep_claims(self, names: frozenset[str]) -> None:
        self._verified_tokens.keep_claims(names)

    async def aclose(self) -> None:
        """Cancel a running fetch and close the HTTP client."""
        await self._keys.aclose()
        await self._document.aclose()

    async def _verify(self, token: str) -> Claims:
        key_id = read_key_id(token, ALGORITHMS)
        if not key_id:
            raise Unauthenticated("The token's header must name its key in `kid`.")
        key = await self._keys.get(key_id)
        if key is None:
            raise Unauthenticated("The token is signed with a key that the identity provider does not publish.")
        payload = verify_signature(token, key, ALGORITHMS)
        return self._verified_tokens.add(token, self._rules.parse(payload), payload)


class JwksCache:
    """Keys by key id. At most one fetch runs at a time; a failed fetch keeps the keys (stale on error).

    Key rotation: a key id that is not in the cache causes a fetch, at most one per `MIN_FETCH_INTERVAL_S`.
    """

    def __init__(
        self,
        fetch: Callable[[], Awaitable[dict[str, PyJWK]]],
        clock: Callable[[], float],
        on_refresh: Callable[[], None],
    ) -> None:
        self._fetch = fetch
        self._clock = clock
        self._on_refresh = on_refresh
        self._keys: dict[str, PyJWK] = {}
        self._stale_at = math.inf
        self._next_fetch_at = -math.inf
        self._fetching: asyncio.Task[None] | None = None

    async def refresh_if_stale(self) -> None:
        """Fetch the keys if their time to live is over. The first caller waits; the others use the stale keys."""
        if self._clock() >= self._stale_at:
            self._stale_at = self._clock() + MIN_FETCH_INTERVAL_S
            await self._wait_for_fetch()

    async def get(self, key_id: str) -> PyJWK | None:
        """Return the key, fetched if it is unknown and a fetch is due. Raises `Unavailable` if the cache is empty."""
        if key_id not in self._keys and (self._fetching or self._clock() >= self._next_fetch_at):
            await self._fetch_unknown_key(key_id)
        if not self._keys:
            raise Unavailable("The identity provider's keys are not available: try again shortly.")
        return self._keys.get(key_id)

    async def aclose(self) -> None:
        if self._fetching:
            self._fetching.cancel()
            await asyncio.wait({self._fetching})

    async def _fetch_unknown_key(self, key_id: str) -> None:
        """Fetch the keys. The first fetch does not start the interval if it finds the key."""
        was_empty = not self._keys
        if not was_empty and not self._fetching:
            self._next_fetch_at = self._clock() + MIN_FETCH_INTERVAL_S
        await self._wait_for_fetch()
        if was_empty and key_id not in self._keys:
            self._next_fetch_at = self._clock() + (MIN_FETCH_INTERVAL_S if self._keys else EMPTY_FETCH_INTERVAL_S)

    async def _wait_for_fetch(self) -> None:
        """Wait for the running fetch, or start one. A cancelled caller does not cancel it: others share it."""
        if self._fetching is None:
            self._fetching = asyncio.create_task(self._refresh())
        await asyncio.shield(self._fetching)

    async def _refresh(self) -> None:
        try:
            self._keys = await self._fetch()
            self._stale_at = self._clock() + KEY_TTL_S
            self._on_refresh()
        except Unavailable as failure:
            if self._keys:
                self._next_fetch_at = self._clock() + MIN_FETCH_INTERVAL_S
            _log.warning("jwks_fetch_failed", reason=repr(failure.__cause__ or failure), keys_kept=len(self._keys))
        finally:
            self._fetching = None
