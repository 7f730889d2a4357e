"""Tokens that must not open anything: each differs from a right one in a single point."""

import base64
import hashlib
import hmac
import json
from collections.abc import Callable
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from latchkey.domain.errors import Unauthenticated
from latchkey.infrastructure.identity.jwks import Jwks
from tests.unit.identity.conftest import ClaimsOf
from tests.unit.identity.provider import ISSUER, Provider, SigningKey

NOW = 1_000_000.0
Forgery = Callable[[SigningKey, dict[str, Any]], str]


def _part(value: object) -> str:
    return base64.urlsafe_b64encode(json.dumps(value).encode()).rstrip(b"=").decode()


def _without_signature(key: SigningKey, claims: dict[str, Any]) -> str:
    return f"{_part({'alg': 'none', 'kid': key.kid})}.{_part(claims)}."


def _public_key_as_secret(key: SigningKey, claims: dict[str, Any]) -> str:
    """Signed by hand: PyJWT refuses to make such a token."""
    public = key.private.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    signed = f"{_part({'alg': 'HS256', 'kid': key.kid})}.{_part(claims)}"
    digest = hmac.new(public, signed.encode(), hashlib.sha256).digest()
    return f"{signed}.{base64.urlsafe_b64encode(digest).rstrip(b'=').decode()}"


def _tampered(key: SigningKey, claims: dict[str, Any]) -> str:
    header, _, signature = key.sign(claims).split(".")
    return f"{header}.{_part({**claims, 'sub': 'eve'})}.{signature}"


def _critical(key: SigningKey, claims: dict[str, Any]) -> str:
    """An extension that PyJWT knows and would follow; signed by hand, because it leaves out what is the default."""
    assert isinstance(key.private, Ed25519PrivateKey)
    signed = f"{_part({'alg': 'EdDSA', 'kid': key.kid, 'crit': ['b64'], 'b64': True})}.{_part(claims)}"
    return f"{signed}.{base64.urlsafe_b64encode(key.private.sign(signed.encode())).rstrip(b'=').decode()}"


def _other_algorithm(key: SigningKey, claims: dict[str, Any]) -> str:
    return SigningKey(key.kid, rsa.generate_private_key(65537, 2048)).sign(claims)


FORGERIES: dict[str, Forgery] = {
    "algorithm none": _without_signature,
    "the public key as an HMAC secret": _public_key_as_secret,
    "a payload changed after signing": _tampered,
    "the right key id on somebody else's key": lambda key, claims: SigningKey(key.kid).sign(claims),
    "another algorithm than the key's": _other_algorithm,
    "an algorithm we do not take": lambda key, claims: jwt.encode(claims, "s" * 64, "HS512", headers={"kid": key.kid}),
    "an unknown key id": lambda _, claims: SigningKey("key-9").sign(claims),
    "no key id": lambda key, claims: jwt.encode(claims, key.private, "EdDSA"),
    "an empty key id": lambda key, claims: key.sign(claims, kid=""),
    "its own key address (jku)": lambda key, claims: key.sign(claims, jku="https://evil.example/jwks"),
    "its own key (jwk)": lambda key, claims: key.sign(claims, jwk=key.jwk),
    "its own certificates (x5u)": lambda key, claims: key.sign(claims, x5u="https://evil.example/x5u"),
    "an extension it calls critical": _critical,
    "a foreign issuer": lambda key, claims: key.sign({**claims, "iss": "https://evil.example"}),
    "a foreign audience": lambda key, claims: key.sign({**claims, "aud": "https://other.example"}),
    "foreign audiences": lambda key, claims: key.sign({**claims, "aud": ["https://other.example", ISSUER]}),
    "an audience that only begins like ours": lambda key, claims: key.sign({**claims, "aud": claims["aud"] + ".evil"}),
    "expired beyond the leeway": lambda key, claims: key.sign({**claims, "exp": NOW - 30}),
    "not valid yet, beyond the leeway": lambda key, claims: key.sign({**claims, "nbf": NOW + 31}),
    "an expiry that is not a number": lambda key, claims: key.sign({**claims, "exp": "never"}),
    "an expiry that is not finite": lambda key, claims: key.sign({**claims, "exp": float("inf")}),
    "a user id with a slash": lambda key, claims: key.sign({**claims, "sub": "ada/../eve"}),
    "a user id that is a path": lambda key, claims: key.sign({**claims, "sub": ".."}),
    "a user id that is a number": lambda key, claims: key.sign({**claims, "sub": 7}),
    "a user id that is too long": lambda key, claims: key.sign({**claims, "sub": "a" * 129}),
    "a right token that is huge": lambda key, claims: key.sign({**claims, "pad": "x" * 9_000}),
    "two segments": lambda key, claims: key.sign(claims).rpartition(".")[0],
    "nothing": lambda *_: "",
    "a text that is no ASCII": lambda key, claims: key.sign(claims) + "\udcff",
}


@pytest.mark.parametrize("forge", FORGERIES.values(), ids=FORGERIES.keys())
async def test_a_forgery_is_refused(
    forge: Forgery, identity: Jwks, provider: Provider, key: SigningKey, claims: ClaimsOf
) -> None:
    """What is wrong in one point only is refused, twice, by an adapter that takes the right token before and after."""
    right = key.sign(claims())
    assert await identity.authenticate(right) == "ada"
    for _ in range(2):
        with pytest.raises(Unauthenticated):
            await identity.authenticate(forge(key, claims()))
    assert await identity.authenticate(right) == "ada"
    assert provider.fetches <= 2


@pytest.mark.parametrize(
    "name", ["algorithm none", "no key id", "its own key address (jku)", "two segments", "nothing"]
)
async def test_what_can_never_be_right_causes_no_fetch(
    name: str, identity: Jwks, provider: Provider, key: SigningKey, claims: ClaimsOf
) -> None:
    with pytest.raises(Unauthenticated):
        await identity.authenticate(FORGERIES[name](key, claims()))
    assert provider.fetches == 0


@pytest.mark.parametrize("claim", ["exp", "iss", "aud", "sub"])
async def test_a_required_claim_may_not_be_missing(
    claim: str, identity: Jwks, key: SigningKey, claims: ClaimsOf
) -> None:
    with pytest.raises(Unauthenticated, match=claim):
        await identity.authenticate(key.sign(claims(**{claim: None})))


async def test_a_refusal_does_not_repeat_the_token(identity: Jwks, key: SigningKey, claims: ClaimsOf) -> None:
    """The detail is published and may be logged: nothing of the credential is in it."""
    forged = _tampered(key, claims())
    with pytest.raises(Unauthenticated) as refused:
        await identity.authenticate(forged)
    assert not any(part in refused.value.detail for part in forged.split("."))
