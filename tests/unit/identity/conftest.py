"""A provider with one key, and the adapter that trusts it."""

from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest

from latchkey.infrastructure.identity.jwks import JwksIdentity
from tests.unit.identity.clock import Clock
from tests.unit.identity.provider import AUDIENCE, ISSUER, Provider, SigningKey

ClaimsOf = Callable[..., dict[str, Any]]


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def claims(clock: Clock) -> ClaimsOf:
    """Right claims, with some replaced or, by None, left out."""

    def build(**changes: Any) -> dict[str, Any]:
        right = {"iss": ISSUER, "aud": AUDIENCE, "sub": "ada", "exp": clock() + 900, **changes}
        return {name: value for name, value in right.items() if value is not None}

    return build


@pytest.fixture
def key() -> SigningKey:
    return SigningKey("key-1")


@pytest.fixture
async def provider(key: SigningKey) -> AsyncIterator[Provider]:
    async with Provider(key) as provider:
        yield provider


@pytest.fixture
async def identity(provider: Provider, clock: Clock) -> AsyncIterator[JwksIdentity]:
    """Both of its clocks are the one of the test."""
    identity = JwksIdentity(provider.url, ISSUER, AUDIENCE, now=clock, clock=clock)
    yield identity
    await identity.aclose()
