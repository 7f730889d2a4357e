"""Bearer credentials (RFC 6750), read from the `Authorization` header and never from a query string."""

from latchkey.domain.credentials import TOKEN_PREFIX, Credential, Owner, TokenSecret
from latchkey.domain.errors import Unauthenticated
from latchkey.domain.ports import Identity

_SCHEME = "bearer "


def is_bearer(authorization: str | None) -> bool:
    """Whether the header has the Bearer scheme, with a valid token or not."""
    return authorization is not None and authorization[: len(_SCHEME)].lower() == _SCHEME


def bearer_of(authorization: str | None) -> str:
    """Return the token of the header. Raises `Unauthenticated` without the header or with another scheme."""
    if authorization is None or not is_bearer(authorization):
        raise Unauthenticated("Missing bearer token: send `Authorization: Bearer TOKEN`.")
    return authorization[len(_SCHEME) :].strip()


async def owner_of(authorization: str | None, identity: Identity) -> Owner:
    """Authenticate the user that a JWT names. Raises `Unauthenticated`, also for a context token, and `Unavailable`."""
    bearer = bearer_of(authorization)
    if bearer.startswith(TOKEN_PREFIX):
        raise Unauthenticated("A context token is accepted at /mcp only: send the user's own JWT here.")
    user_id = await identity.authenticate(bearer)
    return Owner(user_id, identity.timezone_of(bearer), identity.claims_of(bearer))


async def credential_of(authorization: str | None, identity: Identity, audience: str) -> Credential:
    """Authenticate the user that a JWT names, or return a context token, which the unit of work verifies.

    `audience` is accepted in a JWT in addition to the configured one. Raises `Unauthenticated` and `Unavailable`.
    """
    bearer = bearer_of(authorization)
    if bearer.startswith(TOKEN_PREFIX):
        return TokenSecret.parse(bearer)
    return Owner(await identity.authenticate(bearer, audience=audience))
