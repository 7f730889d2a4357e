"""JWT verification: header, signature and claims, and a cache of tokens whose signature has been verified."""

import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any

import msgspec
import structlog
from jwt import PyJWK, PyJWS
from jwt.exceptions import PyJWTError
from msgspec import Struct

from latchkey.domain.credentials import USER_ID_RULE, UserId, parse_user_id
from latchkey.domain.errors import Unauthenticated
from latchkey.domain.values import MAX_TIME_ZONE_CHARS, find_time_zone

_log = structlog.get_logger(__name__)

LEEWAY_S = 30
MAX_TOKEN_CHARACTERS = 8_192
CACHE_CAPACITY = 1_024

# These header parameters would let a token bring its own key, or its own rules of verification (RFC 8725, 3.10;
# RFC 7515, 4.1.11).
_FORBIDDEN_PARAMETERS = frozenset({"jku", "jwk", "x5u", "x5c", "crit"})
_JWS = PyJWS(options={"verify_signature": True, "enforce_minimum_key_length": True})


def read_key_id(token: str, algorithms: Sequence[str]) -> str | None:
    """Check the header and return its `kid`. The signature is not verified yet, so nothing in the token is trusted.

    Raises `Unauthenticated` if it is not a JWT, or its header names a forbidden parameter or another algorithm.
    """
    if len(token) > MAX_TOKEN_CHARACTERS or not token.isascii():
        raise Unauthenticated(f"The bearer token must be a JWT of at most {MAX_TOKEN_CHARACTERS} characters.")
    try:
        header = _JWS.get_unverified_header(token)
    except PyJWTError as error:
        raise Unauthenticated("The bearer token must be a JWT, as the identity provider issued it.") from error
    if not _FORBIDDEN_PARAMETERS.isdisjoint(header):
        raise Unauthenticated(f"The token's header must contain none of {', '.join(sorted(_FORBIDDEN_PARAMETERS))}.")
    if header.get("alg") not in algorithms:
        raise Unauthenticated(f"The token must be signed with {' or '.join(algorithms)}.")
    return header.get("kid")


def verify_signature(token: str, key: PyJWK | bytes, algorithms: Sequence[str]) -> bytes:
    """Return the payload. Raises `Unauthenticated` unless the key signed it with the key's own algorithm."""
    try:
        payload: bytes = _JWS.decode_complete(token, key, algorithms)["payload"]
    except PyJWTError as error:
        raise Unauthenticated(
            "The token's signature is invalid: get a new token from the identity provider."
        ) from error
    return payload


class Claims(Struct, frozen=True):
    """The claims that the service reads: those of RFC 7519, 4.1, all required but `nbf`, and OpenID's `zoneinfo`.

    Times are in seconds. `zoneinfo` may be anything: it is not required to be valid.
    """

    iss: str
    aud: str | list[str]
    sub: str
    exp: float
    nbf: float = 0
    zoneinfo: Any = None

    @property
    def timezone(self) -> str | None:
        """The name in `zoneinfo`; None if there is no such time zone."""
        name = self.zoneinfo
        return name if isinstance(name, str) and find_time_zone(name) else None

    def has_audience(self, audience: str) -> bool:
        return audience == self.aud if isinstance(self.aud, str) else audience in self.aud

    def has_resource(self, resource: str) -> bool:
        """Whether the audience is this URL; scheme and host are case-insensitive (RFC 3986, 6.2.2.1)."""
        audiences = [self.aud] if isinstance(self.aud, str) else self.aud
        return self.has_audience(resource) or _normalized(resource) in map(_normalized, audiences)


class ClaimRules(Struct, frozen=True):
    """The trusted issuer, the expected audience and the current time in seconds since the epoch."""

    issuer: str
    audience: str
    now: Callable[[], float] = time.time

    def parse(self, payload: bytes) -> Claims:
        """Parse a verified payload. Raises `Unauthenticated` if a claim is missing or has another type."""
        try:
            claims = msgspec.json.decode(payload, type=Claims)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            raise Unauthenticated(
                "The token must contain the claims `iss`, `aud`, `sub` and `exp`, each of the type of RFC 7519."
            ) from error
        if claims.zoneinfo and claims.timezone is None:
            _log.info("token_zoneinfo_ignored", zoneinfo=repr(claims.zoneinfo)[:MAX_TIME_ZONE_CHARS], issuer=claims.iss)
        return claims

    def validate(self, claims: Claims, resource: str | None) -> UserId:
        """Return the user of the claims.

        Raises `Unauthenticated` if they have expired, are not valid yet, or name another issuer, or an audience that is
        neither the configured one nor the `resource`.
        """
        user_id, now = parse_user_id(claims.sub), self.now()
        if claims.exp <= now - LEEWAY_S:
            raise Unauthenticated("The token has expired: get a new token from the identity provider.")
        if claims.nbf > now + LEEWAY_S:
            raise Unauthenticated("The token is not valid yet.")
        if claims.iss != self.issuer:
            raise Unauthenticated("The token is from another issuer than this service trusts.")
        if not claims.has_audience(self.audience) and (resource is None or not claims.has_resource(resource)):
            raise Unauthenticated("The token is for another audience than this service.")
        if user_id is None:
            raise Unauthenticated(f"The token's `sub` must be {USER_ID_RULE}.")
        return user_id


class VerifiedTokenCache:
    """The claims of recently verified tokens, by the exact text of the token.

    A hit saves the verification of the signature; expiry and all other claims are validated on each request. Of the
    claims that the service does not read itself, those are kept that the instructions of an assistant name.
    """

    def __init__(self) -> None:
        self._claims: dict[str, Claims] = {}
        self._kept: dict[str, tuple[tuple[str, str], ...]] = {}
        self._names: frozenset[str] = frozenset()

    def get(self, token: str) -> Claims | None:
        return self._claims.get(token)

    def add(self, token: str, claims: Claims, payload: bytes) -> Claims:
        """Store the claims and return them. If the cache is full, the oldest entry is removed."""
        if len(self._claims) >= CACHE_CAPACITY:
            oldest = next(iter(self._claims))
            del self._claims[oldest]
            self._kept.pop(oldest, None)
        self._claims[token] = claims
        if self._names:
            self._kept[token] = _chosen_claims(payload, self._names)
        return claims

    def keep_claims(self, names: frozenset[str]) -> None:
        """Keep these claims from now on. Tokens that lack them are verified again."""
        if names != self._names:
            self._names = names
            self.clear()

    def kept_claims(self, token: str) -> tuple[tuple[str, str], ...]:
        """Return the kept claims of a token that has just been verified: names and JSON."""
        return self._kept.get(token, ())

    def timezone_of(self, token: str) -> str | None:
        """Return the time zone of a token that has just been verified."""
        claims = self._claims.get(token)
        return claims.timezone if claims else None

    def clear(self) -> None:
        self._claims.clear()
        self._kept.clear()


def _chosen_claims(payload: bytes, names: frozenset[str]) -> tuple[tuple[str, str], ...]:
    """Return these claims of a verified payload that has been parsed. A claim that is nested too deeply is left out."""
    chosen = []
    for name, raw in msgspec.json.decode(payload, type=dict[str, msgspec.Raw]).items():
        if name in names:
            with suppress(RecursionError):
                chosen.append((name, msgspec.json.encode(msgspec.json.decode(raw)).decode()))
    return tuple(chosen)


def _normalized(url: str) -> str:
    scheme, colon, rest = url.partition("://")
    host, slash, path = rest.partition("/")
    return f"{scheme.lower()}{colon}{host.lower()}{slash}{path}"
