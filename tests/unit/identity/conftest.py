"""A fake identity provider with one key, and the adapter that trusts it."""

from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest

from latchkey.infrastructure.identity.jwks import JwksIdentity
from tests.fakes.jwks_provider import AUDIENCE, ISSUER, JwksProvider, SigningKey
from tests.unit.identity.clock import Clock

ClaimsOf = Callable[..., dict[str, Any]]


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def claims(clock: Clock) -> ClaimsOf:
    """Valid claims with changes; None removes a claim."""

    def build(**changes: Any) -> dict[str, Any]:
        valid = {"iss": ISSUER, "aud": AUDIENCE, "sub": "ada", "exp": clock() + 900, **changes}
        return {name: value for name, value in valid.items() if value is not None}

    return build


@pytest.fixture
def key() -> SigningKey:
    return SigningKey("key-1")


@pytest.fixture
async def provider(key: SigningKey) -> AsyncIterator[JwksProvider]:
    async with JwksProvider(key) as provider:
        yield provider


@pytest.fixture
async def identity(provider: JwksProvider, clock: Clock) -> AsyncIterator[JwksIdentity]:
    """Both of its clocks are the test's clock."""
    identity = JwksIdentity(provider.url, ISSUER, AUDIENCE, now=clock, clock=clock)
    yield identity
    await identity.aclose()
