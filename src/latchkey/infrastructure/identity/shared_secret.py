"""Identity by a secret that the service shares with whoever signs: HS256, and the service may sign itself."""

import time
from collections.abc import Callable
from datetime import timedelta

import jwt
from jwt.algorithms import HMACAlgorithm

from latchkey.domain.credentials import UserId
from latchkey.domain.errors import Invalid
from latchkey.infrastructure.identity.claims import ClaimRules
from latchkey.infrastructure.identity.signature import key_id_of, verified_payload
from latchkey.infrastructure.identity.token_cache import VerifiedTokenCache

_HS256 = ("HS256",)


class SharedSecret:
    """The `Identity` port. Raises `Invalid` for a secret that is really a public key: anybody could sign with it."""

    def __init__(self, secret: bytes, issuer: str, audience: str, *, now: Callable[[], float] = time.time) -> None:
        try:
            self._secret = HMACAlgorithm(HMACAlgorithm.SHA256).prepare_key(secret)
        except jwt.InvalidKeyError as error:
            raise Invalid("The shared secret must be random bytes, not the key of a key pair.") from error
        self._rules = ClaimRules(issuer, audience, now)
        self._recent = VerifiedTokenCache()

    async def authenticate(self, bearer: str, *, audience: str | None = None) -> UserId:
        claims = self._recent.get(bearer)
        if claims is None:
            key_id_of(bearer, _HS256)
            claims = self._recent.add(bearer, self._rules.read(verified_payload(bearer, self._secret, _HS256)))
        return self._rules.admit(claims, audience)

    def sign(self, user_id: UserId, ttl: timedelta) -> str:
        """A token that names this user, and that `authenticate` takes until the time to live is over."""
        now = int(self._rules.now())
        claims = {
            "iss": self._rules.issuer,
            "aud": self._rules.audience,
            "sub": user_id,
            "iat": now,
            "exp": now + int(ttl.total_seconds()),
        }
        return jwt.encode(claims, self._secret, "HS256")
