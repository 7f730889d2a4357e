"""Tokens that the service signs itself, or that whoever shares its secret does."""

from datetime import timedelta
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from latchkey.domain.credentials import UserId
from latchkey.domain.errors import Invalid, Unauthenticated
from latchkey.infrastructure.identity import token_cache as recent
from latchkey.infrastructure.identity.shared_secret import SharedSecret
from tests.unit.identity.clock import Clock
from tests.unit.identity.conftest import ClaimsOf
from tests.unit.identity.provider import AUDIENCE, ISSUER, SigningKey

SECRET = b"0123456789abcdef0123456789abcdef"


@pytest.fixture
def identity(clock: Clock) -> SharedSecret:
    return SharedSecret(SECRET, ISSUER, AUDIENCE, now=clock)


def _signed(claims: dict[str, Any], secret: bytes = SECRET, algorithm: str = "HS256", **header: Any) -> str:
    return jwt.encode(claims, secret, algorithm, headers=header)


async def test_a_token_it_signs_is_one_it_takes_until_it_expires(identity: SharedSecret, clock: Clock) -> None:
    token = identity.sign(UserId("ada"), timedelta(hours=1))
    clock.advance(3_600 + 29)
    assert await identity.authenticate(token) == "ada"
    clock.advance(1)
    with pytest.raises(Unauthenticated, match="expired"):
        await identity.authenticate(token)


async def test_anyone_who_shares_the_secret_may_sign(identity: SharedSecret, claims: ClaimsOf) -> None:
    """A key id is not asked for, and does not disturb."""
    assert await identity.authenticate(_signed(claims())) == "ada"
    assert await identity.authenticate(_signed(claims(sub="bob"), kid="whatever")) == "bob"


async def test_an_additional_audience_counts_where_it_is_named(identity: SharedSecret, claims: ClaimsOf) -> None:
    token = _signed(claims(aud="https://api.example/mcp"))
    assert await identity.authenticate(token, audience="https://api.example/mcp") == "ada"
    with pytest.raises(Unauthenticated, match="audience"):
        await identity.authenticate(token)


@pytest.mark.parametrize(
    ("changes", "how"),
    [
        ({}, {"secret": b"another secret, and a long enough one"}),
        ({}, {"algorithm": "HS384", "secret": SECRET * 2}),
        ({}, {"jku": "https://evil.example"}),
        ({}, {"crit": ["exp"]}),
        ({"iss": "https://evil.example"}, {}),
        ({"aud": "https://other.example"}, {}),
        ({"aud": []}, {}),
        ({"exp": 1_000_000 - 30}, {}),
        ({"nbf": 1_000_000 + 31}, {}),
        ({"exp": None}, {}),
        ({"sub": None}, {}),
        ({"sub": "."}, {}),
        ({"pad": "x" * 9_000}, {}),
    ],
)
async def test_a_forgery_is_refused(
    changes: dict[str, Any], how: dict[str, Any], identity: SharedSecret, claims: ClaimsOf
) -> None:
    """Each differs from a right token in a single point, and is refused the second time as well."""
    forged = _signed(claims(**changes), **how)
    for _ in range(2):
        with pytest.raises(Unauthenticated):
            await identity.authenticate(forged)


async def test_an_unsigned_token_is_refused(identity: SharedSecret, claims: ClaimsOf) -> None:
    with pytest.raises(Unauthenticated, match="HS256"):
        await identity.authenticate(jwt.encode(claims(), "", "none"))


async def test_a_flood_of_right_tokens_does_not_fill_the_memory(identity: SharedSecret, claims: ClaimsOf) -> None:
    """The oldest are forgotten, which costs them a signature and nothing else."""
    tokens = [_signed(claims(sub=f"user-{n}")) for n in range(recent._CAPACITY + 5)]
    for n, token in enumerate(tokens):
        assert await identity.authenticate(token) == f"user-{n}"
    assert len(identity._recent._claims) == recent._CAPACITY
    assert await identity.authenticate(tokens[0]) == "user-0"


def test_a_public_key_is_no_shared_secret() -> None:
    """Whoever pastes their provider's public key here would let everybody sign."""
    public = SigningKey("k").private.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    with pytest.raises(Invalid, match="random bytes"):
        SharedSecret(public, ISSUER, AUDIENCE)
