"""Forged tokens are refused, each for itself, by an adapter that takes the right one."""

from typing import Any

import pytest

from latchkey.domain.errors import Unauthenticated
from latchkey.infrastructure.identity.jwks import JwksIdentity
from tests.unit.identity.conftest import ClaimsOf
from tests.unit.identity.forgeries import EC_KEY, FORGERIES, MISSHAPEN, UNSIGNED, Forgery
from tests.unit.identity.provider import Provider, SigningKey


@pytest.mark.parametrize("forge", FORGERIES.values(), ids=FORGERIES.keys())
async def test_a_forgery_is_refused(
    forge: Forgery, identity: JwksIdentity, provider: Provider, key: SigningKey, claims: ClaimsOf
) -> None:
    """What is wrong in one point only is refused, twice, by an adapter that takes the right token before and after.

    The detail is published and may be logged: nothing of the token is in it.
    """
    provider.keys.append(EC_KEY)
    for right in (key.sign(claims()), EC_KEY.sign(claims())):
        assert await identity.authenticate(right) == "ada"
    for _ in range(2):
        forged = forge(key, claims())
        with pytest.raises(Unauthenticated) as refused:
            await identity.authenticate(forged)
        assert not any(part in refused.value.detail for part in forged.split(".") if part)
    assert await identity.authenticate(key.sign(claims())) == "ada"
    assert provider.fetches <= 2


@pytest.mark.parametrize(
    "name", [*MISSHAPEN, "algorithm none", "no key id", "its own key address (jku)", "a header that is very deep"]
)
async def test_what_can_never_be_right_causes_no_fetch(
    name: str, identity: JwksIdentity, provider: Provider, key: SigningKey, claims: ClaimsOf
) -> None:
    with pytest.raises(Unauthenticated):
        await identity.authenticate(FORGERIES[name](key, claims()))
    assert provider.fetches == 0


@pytest.mark.parametrize("claim", ["exp", "iss", "aud", "sub"])
async def test_a_required_claim_may_not_be_missing(
    claim: str, identity: JwksIdentity, key: SigningKey, claims: ClaimsOf
) -> None:
    with pytest.raises(Unauthenticated, match=claim):
        await identity.authenticate(key.sign(claims(**{claim: None})))


@pytest.mark.parametrize("name", UNSIGNED)
async def test_whoever_cannot_sign_learns_nothing_from_a_refusal(
    name: str, identity: JwksIdentity, key: SigningKey, claims: ClaimsOf
) -> None:
    """What is said of a token does not depend on what it claims: not whose it is, from whom, for whom, or when."""
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
    said = set()
    for change in changes:
        with pytest.raises(Unauthenticated) as refused:
            await identity.authenticate(FORGERIES[name](key, claims(**change)))
        said.add(refused.value.detail)

    assert len(said) == 1
