"""Forged tokens are unauthenticated; the adapter accepts the valid token that each differs from."""

from typing import Any

import pytest

from latchkey.domain.errors import Unauthenticated
from latchkey.infrastructure.identity.jwks import JwksIdentity
from tests.fakes.jwks_provider import JwksProvider, SigningKey
from tests.unit.identity.conftest import ClaimsOf
from tests.unit.identity.forged_tokens import EC_KEY, FORGED_TOKENS, INVALID_SIGNATURE, MALFORMED, Forge


@pytest.mark.parametrize("forge", FORGED_TOKENS.values(), ids=FORGED_TOKENS.keys())
async def test_forged_token_is_unauthenticated(
    forge: Forge, identity: JwksIdentity, provider: JwksProvider, key: SigningKey, claims: ClaimsOf
) -> None:
    """Twice: a refused token is not cached. Valid tokens are accepted before and after.

    The error detail contains no part of the token, because it is published and may be logged.
    """
    provider.keys.append(EC_KEY)
    for valid in (key.sign(claims()), EC_KEY.sign(claims())):
        assert await identity.authenticate(valid) == "ada"
    for _ in range(2):
        forged = forge(key, claims())
        with pytest.raises(Unauthenticated) as refused:
            await identity.authenticate(forged)
        assert not any(part in refused.value.detail for part in forged.split(".") if part)
    assert await identity.authenticate(key.sign(claims())) == "ada"
    assert provider.fetches <= 2


@pytest.mark.parametrize(
    "name", [*MALFORMED, "algorithm none", "no key id", "its own key address (jku)", "a deeply nested header"]
)
async def test_forged_token_that_cannot_be_verified_causes_no_jwks_fetch(
    name: str, identity: JwksIdentity, provider: JwksProvider, key: SigningKey, claims: ClaimsOf
) -> None:
    with pytest.raises(Unauthenticated):
        await identity.authenticate(FORGED_TOKENS[name](key, claims()))
    assert provider.fetches == 0


@pytest.mark.parametrize("claim", ["exp", "iss", "aud", "sub"])
async def test_jwt_without_a_required_claim_is_unauthenticated(
    claim: str, identity: JwksIdentity, key: SigningKey, claims: ClaimsOf
) -> None:
    with pytest.raises(Unauthenticated, match=claim):
        await identity.authenticate(key.sign(claims(**{claim: None})))


@pytest.mark.parametrize("name", INVALID_SIGNATURE)
async def test_forged_signature_gives_the_same_error_whatever_the_claims(
    name: str, identity: JwksIdentity, key: SigningKey, claims: ClaimsOf
) -> None:
    """The error does not depend on subject, issuer, audience or times, so an attacker learns nothing from it."""
    changes: list[dict[str, Any]] = [
        {},
        {"iss": "x"},
        {"aud": "x"},
        {"exp": 1},
        {"nbf": 9e9},
        {"sub": "bob"},
        {"sub": "/"},
        {"sub": None},
    ]
    details = set()
    for change in changes:
        with pytest.raises(Unauthenticated) as refused:
            await identity.authenticate(FORGED_TOKENS[name](key, claims(**change)))
        details.add(refused.value.detail)

    assert len(details) == 1
