"""The bearer credential of a request (RFC 6750): read from the header alone, never from a query string."""

from latchkey.domain.credentials import TOKEN_PREFIX, Credential, Owner, TokenSecret
from latchkey.domain.errors import Unauthenticated
from latchkey.domain.ports import Identity

_SCHEME = "bearer "


def is_bearer(authorization: str | None) -> bool:
    """Whether that is a bearer token at all, right or wrong."""
    return authorization is not None and authorization[: len(_SCHEME)].lower() == _SCHEME


def bearer_of(authorization: str | None) -> str:
    """The token. Raises `Unauthenticated` without one."""
    if authorization is None or not is_bearer(authorization):
        raise Unauthenticated("Send `Authorization: Bearer TOKEN`.")
    return authorization[len(_SCHEME) :].strip()


async def owner_of(authorization: str | None, identity: Identity) -> Owner:
    """The person whom the token names. Raises `Unauthenticated`, for a context token too, and `Unavailable`."""
    bearer = bearer_of(authorization)
    if bearer.startswith(TOKEN_PREFIX):
        raise Unauthenticated("A context token opens /mcp, not this: send the person's own token.")
    return Owner(await identity.authenticate(bearer))


async def credential_of(authorization: str | None, identity: Identity, audience: str) -> Credential:
    """The person, or the context token, which the unit of work resolves. Raises like `owner_of`."""
    bearer = bearer_of(authorization)
    if bearer.startswith(TOKEN_PREFIX):
        return TokenSecret.parse(bearer)
    return Owner(await identity.authenticate(bearer, audience=audience))
