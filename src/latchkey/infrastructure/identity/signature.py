"""The signature of a JWT: who may have made it, by which algorithm, and what it vouches for."""

from collections.abc import Sequence

from jwt import PyJWK, PyJWS
from jwt.exceptions import PyJWTError

from latchkey.domain.errors import Unauthenticated

MAX_CHARACTERS = 8_192

# With these a token would bring its own key, or its own idea of how to be verified (RFC 8725, 3.10; RFC 7515, 4.1.11).
_REFUSED = frozenset({"jku", "jwk", "x5u", "x5c", "crit"})
_JWS = PyJWS(options={"verify_signature": True, "enforce_minimum_key_length": True})


def key_id_of(bearer: str, algorithms: Sequence[str]) -> str | None:
    """The `kid` of a token that might be verified; nothing it says is true yet.

    Raises `Unauthenticated` for what is not a JWT, or one that is signed or to be verified in a way we do not take.
    """
    if len(bearer) > MAX_CHARACTERS or not bearer.isascii():
        raise Unauthenticated(f"The bearer token must be a JWT of at most {MAX_CHARACTERS} characters.")
    try:
        header = _JWS.get_unverified_header(bearer)
    except PyJWTError as error:
        raise Unauthenticated("The bearer token must be a JWT, as the identity provider issued it.") from error
    if not _REFUSED.isdisjoint(header):
        raise Unauthenticated(f"The token's header must have none of {', '.join(sorted(_REFUSED))}.")
    if header.get("alg") not in algorithms:
        raise Unauthenticated(f"The token must be signed with {' or '.join(algorithms)}.")
    return header.get("kid")


def verified_payload(bearer: str, key: PyJWK | bytes, algorithms: Sequence[str]) -> bytes:
    """What the signature vouches for. Raises `Unauthenticated` unless the key made it, by the key's own algorithm."""
    try:
        payload: bytes = _JWS.decode_complete(bearer, key, algorithms)["payload"]
    except PyJWTError as error:
        raise Unauthenticated("The token's signature is not right: ask the identity provider for a new one.") from error
    return payload
