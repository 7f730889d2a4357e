"""Tokens that must be unauthenticated: each differs from a valid token in one point."""

import base64
import hashlib
import hmac
import json
from collections.abc import Callable
from typing import Any

import jwt
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from tests.fakes.jwks_provider import ISSUER, SigningKey

LIFE_S = 900
"""The remaining life of the valid token in seconds; other times are computed from its expiry."""

Claims = dict[str, Any]
Forge = Callable[[SigningKey, Claims], str]

EC_KEY = SigningKey("key-ec", ec.generate_private_key(ec.SECP256R1()))
"""A key of another type that the provider also publishes."""
_RSA = rsa.generate_private_key(65537, 2048)


def _encoded(value: bytes) -> str:
    return base64.urlsafe_b64encode(value).rstrip(b"=").decode()


def _part(value: object) -> str:
    return _encoded(json.dumps(value).encode())


def by_hand(key: SigningKey, header: str, payload: str) -> str:
    """Sign the parts as they are: PyJWT refuses to create some of these tokens."""
    assert isinstance(key.private, Ed25519PrivateKey)
    signed = f"{header}.{payload}"
    return f"{signed}.{_encoded(key.private.sign(signed.encode()))}"


def _with_header(**header: Any) -> Forge:
    """A valid signature with changed header parameters; None removes one."""

    def forge(key: SigningKey, claims: Claims) -> str:
        parameters = {"alg": "EdDSA", "kid": key.kid, **header}
        return by_hand(
            key, _part({name: value for name, value in parameters.items() if value is not None}), _part(claims)
        )

    return forge


def _with_claims(change: Callable[[Claims], Claims]) -> Forge:
    """A valid signature with changed claims."""
    return lambda key, claims: key.sign({**claims, **change(claims)})


def _with_payload(payload: bytes) -> Forge:
    """A valid signature of a payload that is not a claims object."""
    return lambda key, _: by_hand(key, _part({"alg": "EdDSA", "kid": key.kid}), _encoded(payload))


def _with_raw_header(header: bytes) -> Forge:
    """A valid signature under an invalid header."""
    return lambda key, claims: by_hand(key, _encoded(header), _part(claims))


def _with_secret(secret: Callable[[SigningKey], bytes]) -> Forge:
    """HS256 with the public key as the secret, which everybody knows."""

    def forge(key: SigningKey, claims: Claims) -> str:
        signed = f"{_part({'alg': 'HS256', 'kid': key.kid})}.{_part(claims)}"
        return f"{signed}.{_encoded(hmac.new(secret(key), signed.encode(), hashlib.sha256).digest())}"

    return forge


def _public(encoding: Encoding, format: PublicFormat) -> Callable[[SigningKey], bytes]:
    return lambda key: key.private.public_key().public_bytes(encoding, format)


def _tampered(key: SigningKey, claims: Claims) -> str:
    header, _, signature = key.sign(claims).split(".")
    return f"{header}.{_part({**claims, 'sub': 'eve'})}.{signature}"


def _stripped(key: SigningKey, claims: Claims) -> str:
    return key.sign(claims).rpartition(".")[0] + "."


INVALID_SIGNATURE: dict[str, Forge] = {
    "algorithm none": lambda key, claims: f"{_part({'alg': 'none', 'kid': key.kid})}.{_part(claims)}.",
    "algorithm NonE": lambda key, claims: f"{_part({'alg': 'NonE', 'kid': key.kid})}.{_part(claims)}.",
    "the public key as an HMAC secret, PEM": _with_secret(_public(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)),
    "the public key as an HMAC secret, DER": _with_secret(_public(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)),
    "the public key as an HMAC secret, raw": _with_secret(_public(Encoding.Raw, PublicFormat.Raw)),
    "the public key as an HMAC secret, JWK": _with_secret(lambda key: json.dumps(key.jwk).encode()),
    "an empty HMAC secret": _with_secret(lambda _: b""),
    "a payload changed after signing": _tampered,
    "without the signature": _stripped,
    "a known key id on another key": lambda key, claims: SigningKey(key.kid).sign(claims),
    "another algorithm than the key's": lambda key, claims: SigningKey(key.kid, _RSA).sign(claims),
    "another key's algorithm and id": lambda key, claims: SigningKey(EC_KEY.kid, key.private).sign(claims),
    "RS256 under the id of an EC key": lambda _, claims: SigningKey(EC_KEY.kid, _RSA).sign(claims),
    "an algorithm that is not allowed": lambda key, claims: jwt.encode(
        claims, "s" * 64, "HS512", headers={"kid": key.kid}
    ),
    "an unknown key id": lambda _, claims: SigningKey("key-9").sign(claims),
    "a key id that is a path": lambda _, claims: SigningKey("../../../../dev/null").sign(claims),
    "a key id that is SQL": lambda _, claims: SigningKey("x' UNION SELECT 'secret'; --").sign(claims),
    "a key id that is an address": lambda _, claims: SigningKey("https://evil.example/key").sign(claims),
    "a key id with NUL in it": lambda key, claims: SigningKey(f"{key.kid}\0").sign(claims),
    "a key id with a surrogate in it": lambda _, claims: SigningKey("\ud800").sign(claims),
}
"""Made without the private key of the provider."""

INVALID_HEADER: dict[str, Forge] = {
    "no key id": _with_header(kid=None),
    "an empty key id": _with_header(kid=""),
    "a key id that is a number": _with_header(kid=1),
    "a key id that is a list": _with_header(kid=["key-1"]),
    "an algorithm that is a list": _with_header(alg=["EdDSA"]),
    "no algorithm": _with_header(alg=None),
    "its own key address (jku)": _with_header(jku="https://evil.example/jwks"),
    "its own key (jwk)": lambda key, claims: _with_header(jwk=key.jwk)(key, claims),
    "its own certificates' address (x5u)": _with_header(x5u="https://evil.example/x5u"),
    "its own certificates (x5c)": _with_header(x5c=["MIIB"]),
    "a critical extension": _with_header(crit=["b64"], b64=True),
    "an unknown critical extension": _with_header(crit=["x"], x=1),
    "a detached payload (b64)": _with_header(b64=False),
    "a header that is a list": _with_raw_header(b"[]"),
    "a header that is not JSON": _with_raw_header(b"{alg"),
    "a header that is not UTF-8": _with_raw_header(b'{"alg": "\xff"}'),
    "a deeply nested header": _with_raw_header(b"[" * 4_000),
    "a header with a number that is very long": _with_raw_header(b'{"alg": ' + b"9" * 5_000 + b"}"),
}
"""Signed with the provider's key, with a header that is not allowed."""

INVALID_CLAIMS: dict[str, Forge] = {
    "a foreign issuer": _with_claims(lambda _: {"iss": "https://evil.example"}),
    "an issuer that only begins like ours": _with_claims(lambda claims: {"iss": claims["iss"] + "/"}),
    "a foreign audience": _with_claims(lambda _: {"aud": "https://other.example"}),
    "foreign audiences": _with_claims(lambda _: {"aud": ["https://other.example", ISSUER]}),
    "an audience that only begins like ours": _with_claims(lambda claims: {"aud": claims["aud"] + ".evil"}),
    "no audience at all": _with_claims(lambda _: {"aud": []}),
    "an audience that is an object": _with_claims(lambda claims: {"aud": {claims["aud"]: True}}),
    "expired beyond the leeway": _with_claims(lambda claims: {"exp": claims["exp"] - LIFE_S - 30}),
    "not valid yet, beyond the leeway": _with_claims(lambda claims: {"nbf": claims["exp"] - LIFE_S + 60}),
    "an expiry that is not a number": _with_claims(lambda _: {"exp": "never"}),
    "an expiry that is null": _with_claims(lambda _: {"exp": None}),
    "an infinite expiry": _with_claims(lambda _: {"exp": float("inf")}),
    "a user id with a slash": _with_claims(lambda _: {"sub": "ada/../eve"}),
    "a user id that is a path": _with_claims(lambda _: {"sub": ".."}),
    "a user id with a line break after it": _with_claims(lambda _: {"sub": "ada\n"}),
    "a user id with NUL in it": _with_claims(lambda _: {"sub": "ada\0"}),
    "a user id that is empty": _with_claims(lambda _: {"sub": ""}),
    "a user id that is a number": _with_claims(lambda _: {"sub": 7}),
    "a user id that is too long": _with_claims(lambda _: {"sub": "a" * 129}),
    "no user id": lambda key, claims: key.sign({name: claims[name] for name in claims if name != "sub"}),
    "a payload that is a list": _with_payload(b"[]"),
    "a payload that is not UTF-8": _with_payload(b'{"sub": "\xff"}'),
    "a deeply nested payload": _with_payload(b'{"x":' + b"[" * 5_000),
}
"""Signed with the provider's key, with claims that are not valid for this service now."""

MALFORMED: dict[str, Forge] = {
    "a valid token over the size limit": _with_claims(lambda _: {"pad": "x" * 9_000}),
    "a valid token of more than 100 KiB": _with_claims(lambda _: {"pad": "x" * 100_000}),
    "two parts": lambda key, claims: key.sign(claims).rpartition(".")[0],
    "five parts, as an encrypted token has": lambda key, claims: key.sign(claims) + ".e30.e30",
    "very many parts": lambda key, claims: key.sign(claims) + ".e30" * 1_500,
    "only dots": lambda *_: "." * 8_000,
    "empty": lambda *_: "",
    "NUL in a valid token": lambda key, claims: key.sign(claims).replace(".", ".\0", 1),
    "padding after a valid token": lambda key, claims: key.sign(claims) + "=",
    "not ASCII": lambda key, claims: key.sign(claims) + "\u00ff",
    "a lone surrogate": lambda key, claims: key.sign(claims) + "\udcff",
}
"""Texts that do not have the form of a JWT."""

FORGED_TOKENS = INVALID_SIGNATURE | INVALID_HEADER | INVALID_CLAIMS | MALFORMED
