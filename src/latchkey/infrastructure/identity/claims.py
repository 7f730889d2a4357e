"""What a JWT must claim, whoever signed it."""

import time
from collections.abc import Callable

import msgspec
from msgspec import Struct

from latchkey.domain.credentials import UserId, parse_user_id
from latchkey.domain.errors import Unauthenticated

LEEWAY_S = 30


class Claims(Struct, frozen=True):
    """The registered claims that we read (RFC 7519, 4.1); all but `nbf` are required, and times are in seconds."""

    iss: str
    aud: str | list[str]
    sub: str
    exp: float
    nbf: float = 0

    def is_for(self, audience: str) -> bool:
        return audience == self.aud if isinstance(self.aud, str) else audience in self.aud

    def is_for_resource(self, resource: str) -> bool:
        """The same for an address, whose scheme and host may be written in any case (RFC 3986, 6.2.2.1)."""
        named = [self.aud] if isinstance(self.aud, str) else self.aud
        return self.is_for(resource) or _canonical(resource) in map(_canonical, named)


class ClaimRules(Struct, frozen=True):
    """Whose tokens are taken, for whom they must be, and what time it is."""

    issuer: str
    audience: str
    now: Callable[[], float] = time.time

    def read(self, payload: bytes) -> Claims:
        """The claims of a payload whose signature was right. Raises `Unauthenticated` if one is missing or mistyped."""
        try:
            return msgspec.json.decode(payload, type=Claims)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            raise Unauthenticated("The token must claim `iss`, `aud`, `sub` and `exp`, each of its type.") from error

    def admit(self, claims: Claims, resource: str | None) -> UserId:
        """The user whom the claims name, now, for us or for that resource. Raises `Unauthenticated` if they do not."""
        user_id, now = parse_user_id(claims.sub), self.now()
        if claims.exp <= now - LEEWAY_S:
            raise Unauthenticated("The token has expired: ask the identity provider for a new one.")
        if claims.nbf > now + LEEWAY_S:
            raise Unauthenticated("The token is not valid yet.")
        if claims.iss != self.issuer:
            raise Unauthenticated("The token is from another issuer than this service trusts.")
        if not claims.is_for(self.audience) and (resource is None or not claims.is_for_resource(resource)):
            raise Unauthenticated("The token is meant for another audience than this service.")
        if user_id is None:
            raise Unauthenticated("The token's `sub` must be 1-128 characters of `A-Za-z0-9._~:@|-`, not `.` or `..`.")
        return user_id


def _canonical(address: str) -> str:
    scheme, colon, rest = address.partition("://")
    host, slash, path = rest.partition("/")
    return f"{scheme.lower()}{colon}{host.lower()}{slash}{path}"
