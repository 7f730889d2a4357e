"""Identity by an identity provider that publishes its keys: EdDSA, ES256 or RS256."""

import time
from collections.abc import Callable

from latchkey.domain.credentials import UserId
from latchkey.domain.errors import Unauthenticated
from latchkey.infrastructure.identity.claims import ClaimRules, Claims
from latchkey.infrastructure.identity.jwks_cache import JwksCache
from latchkey.infrastructure.identity.jwks_document import ALGORITHMS, JwksDocument
from latchkey.infrastructure.identity.signature import key_id_of, verified_payload
from latchkey.infrastructure.identity.token_cache import VerifiedTokenCache


class JwksIdentity:
    """The `Identity` port. `now` tells the time of tokens, `clock` (monotonic) that of the keys."""

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
        self._recent = VerifiedTokenCache()
        self._document = JwksDocument(url)
        # What was signed with a key that has been withdrawn since is not remembered.
        self._keys = JwksCache(self._document.fetch, clock, self._recent.clear)

    async def authenticate(self, bearer: str, *, audience: str | None = None) -> UserId:
        await self._keys.keep_fresh()
        claims = self._recent.get(bearer) or await self._verified(bearer)
        return self._rules.admit(claims, audience)

    async def aclose(self) -> None:
        """Stop fetching keys and close the connections."""
        await self._keys.aclose()
        await self._document.aclose()

    async def _verified(self, bearer: str) -> Claims:
        key_id = key_id_of(bearer, ALGORITHMS)
        if not key_id:
            raise Unauthenticated("The token's header must name its key, as `kid`.")
        key = await self._keys.get(key_id)
        if key is None:
            raise Unauthenticated("The token is signed with a key that the identity provider does not publish.")
        return self._recent.add(bearer, self._rules.read(verified_payload(bearer, key, ALGORITHMS)))
