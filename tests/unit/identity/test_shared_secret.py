"""Tokens signed with the shared secret, by the service or by another issuer."""

from datetime import timedelta
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from latchkey.domain.credentials import UserId
from latchkey.domain.errors import Invalid, Unauthenticated
from latchkey.infrastructure.identity import jwt_verification
from latchkey.infrastructure.identity.shared_secret import SharedSecret
from tests.fakes.jwks_provider import AUDIENCE, ISSUER, SigningKey
from tests.unit.identity.clock import Clock
from tests.unit.identity.conftest import ClaimsOf

SECRET = b"0123456789abcdef0123456789abcdef"


@pytest.fixture
def identity(clock: Clock) -> SharedSecret:
    return SharedSecret(SECRET, ISSUER, AUDIENCE, now=clock)


def _signed(claims: dict[str, Any], secret: bytes = SECRET, algorithm: str = "HS256", **header: Any) -> str:
    return jwt.encode(claims, secret, algorithm, headers=header)


async def test_shared_secret_token_is_valid_until_expired(identity: SharedSecret, clock: Clock) -> None:
    token = identity.sign(UserId("ada"), timedelta(hours=1))
    clock.advance(3_600 + 29)
    assert await identity.authenticate(token) == "ada"
    clock.advance(1)
    with pytest.raises(Unauthenticated, match="expired"):
        await identity.authenticate(token)


async def test_shared_secret_signature_of_another_issuer_authenticates_the_user(
    identity: SharedSecret, claims: ClaimsOf
) -> None:
    """A `kid` is not required, and ignored."""
    assert await identity.authenticate(_signed(claims())) == "ada"
    assert await identity.authenticate(_signed(claims(sub="bob"), kid="whatever")) == "bob"


async def test_shared_secret_audience_of_a_resource_is_valid_only_for_that_resource(
    identity: SharedSecret, claims: ClaimsOf
) -> None:
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
async def test_shared_secret_forged_or_expired_token_is_unauthenticated(
    changes: dict[str, Any], how: dict[str, Any], identity: SharedSecret, claims: ClaimsOf
) -> None:
    """Each differs from a valid token in one point, and is refused twice: a refused token is not cached."""
    forged = _signed(claims(**changes), **how)
    for _ in range(2):
        with pytest.raises(Unauthenticated):
            await identity.authenticate(forged)


async def test_shared_secret_token_without_signature_is_unauthenticated(
    identity: SharedSecret, claims: ClaimsOf
) -> None:
    with pytest.raises(Unauthenticated, match="HS256"):
        await identity.authenticate(jwt.encode(claims(), "", "none"))


async def test_shared_secret_token_cache_removes_the_oldest_entry_when_full(
    identity: SharedSecret, claims: ClaimsOf
) -> None:
    """A removed token stays valid: its signature is verified again."""
    tokens = [_signed(claims(sub=f"user-{n}")) for n in range(jwt_verification.CACHE_CAPACITY + 5)]
    for n, token in enumerate(tokens):
        assert await identity.authenticate(token) == f"user-{n}"
    assert len(identity._verified_tokens._claims) == jwt_verification.CACHE_CAPACITY
    assert await identity.authenticate(tokens[0]) == "user-0"


def test_shared_secret_that_is_a_public_key_is_refused() -> None:
    """Everybody knows the provider's public key, so everybody could sign."""
    public = SigningKey("k").private.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    with pytest.raises(Invalid, match="random bytes"):
        SharedSecret(public, ISSUER, AUDIENCE)


async def test_shared_secret_keeps_only_the_named_claims(identity: SharedSecret, claims: ClaimsOf) -> None:
    token = _signed(claims(plan="gold", roles=["a", {"b": None}], age=5, other="x", kept="y"))
    identity.keep_claims(frozenset({"plan", "roles", "age", "absent"}))
    await identity.authenticate(token)

    assert dict(identity.claims_of(token)) == {"plan": '"gold"', "roles": '["a",{"b":null}]', "age": "5"}
    assert identity.claims_of("another token") == ()


async def test_shared_secret_keeps_no_claims_unless_they_are_named(identity: SharedSecret, claims: ClaimsOf) -> None:
    token = _signed(claims(plan="gold"))
    await identity.authenticate(token)

    assert identity.claims_of(token) == ()


async def test_shared_secret_token_is_read_again_when_other_claims_are_named(
    identity: SharedSecret, claims: ClaimsOf
) -> None:
    token = _signed(claims(plan="gold", age=5))
    for names, kept in (({"plan"}, (("plan", '"gold"'),)), ({"age"}, (("age", "5"),)), (set[str](), ())):
        identity.keep_claims(frozenset(names))
        await identity.authenticate(token)
        assert identity.claims_of(token) == kept


async def test_shared_secret_kept_claims_are_removed_with_their_token(
    identity: SharedSecret, claims: ClaimsOf, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(jwt_verification, "CACHE_CAPACITY", 2)
    identity.keep_claims(frozenset({"plan"}))
    tokens = [_signed(claims(plan=n)) for n in range(3)]
    for token in tokens:
        await identity.authenticate(token)

    assert [identity.claims_of(token) for token in tokens] == [(), (("plan", "1"),), (("plan", "2"),)]
