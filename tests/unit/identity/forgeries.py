"""Tokens that must not open anything: each differs from a right one in a single point."""

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

from tests.unit.identity.provider import ISSUER, SigningKey

LIFE_S = 900
"""How long a right token still lives; so what is past and what is to come can be told from its expiry."""

Claims = dict[str, Any]
Forgery = Callable[[SigningKey, Claims], str]

EC_KEY = SigningKey("key-ec", ec.generate_private_key(ec.SECP256R1()))
"""A key of another kind, which the provider publishes too."""
_RSA = rsa.generate_private_key(65537, 2048)


def _encoded(value: bytes) -> str:
    return base64.urlsafe_b64encode(value).rstrip(b"=").decode()


def _part(value: object) -> str:
    return _encoded(json.dumps(value).encode())


def by_hand(key: SigningKey, header: str, payload: str) -> str:
    """The parts, signed as they are: PyJWT refuses to make some of the tokens that it must refuse to take."""
    assert isinstance(key.private, Ed25519PrivateKey)
    signed = f"{header}.{payload}"
    return f"{signed}.{_encoded(key.private.sign(signed.encode()))}"


def _headed(**header: Any) -> Forgery:
    """Rightly signed under a header with that in it; what is None is left out."""

    def forge(key: SigningKey, claims: Claims) -> str:
        said = {"alg": "EdDSA", "kid": key.kid, **header}
        return by_hand(key, _part({name: value for name, value in said.items() if value is not None}), _part(claims))

    return forge


def _claiming(change: Callable[[Claims], Claims]) -> Forgery:
    """Rightly signed, with other claims."""
    return lambda key, claims: key.sign({**claims, **change(claims)})


def _saying(payload: bytes) -> Forgery:
    """Rightly signed, and not what a payload is."""
    return lambda key, _: by_hand(key, _part({"alg": "EdDSA", "kid": key.kid}), _encoded(payload))


def _under(header: bytes) -> Forgery:
    """With a header that is none."""
    return lambda key, claims: by_hand(key, _encoded(header), _part(claims))


def _with_secret(secret: Callable[[SigningKey], bytes]) -> Forgery:
    """HS256, where everybody knows the secret: it is the public key."""

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


UNSIGNED: dict[str, Forgery] = {
    "algorithm none": lambda key, claims: f"{_part({'alg': 'none', 'kid': key.kid})}.{_part(claims)}.",
    "algorithm NonE": lambda key, claims: f"{_part({'alg': 'NonE', 'kid': key.kid})}.{_part(claims)}.",
    "the public key as an HMAC secret, PEM": _with_secret(_public(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)),
    "the public key as an HMAC secret, DER": _with_secret(_public(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)),
    "the public key as an HMAC secret, raw": _with_secret(_public(Encoding.Raw, PublicFormat.Raw)),
    "the public key as an HMAC secret, JWK": _with_secret(lambda key: json.dumps(key.jwk).encode()),
    "an empty HMAC secret": _with_secret(lambda _: b""),
    "a payload changed after signing": _tampered,
    "the signature taken off": _stripped,
    "the right key id on somebody else's key": lambda key, claims: SigningKey(key.kid).sign(claims),
    "another algorithm than the key's": lambda key, claims: SigningKey(key.kid, _RSA).sign(claims),
    "another key's algorithm and id": lambda key, claims: SigningKey(EC_KEY.kid, key.private).sign(claims),
    "RS256 under the id of an EC key": lambda _, claims: SigningKey(EC_KEY.kid, _RSA).sign(claims),
    "an algorithm we do not take": lambda key, claims: jwt.encode(claims, "s" * 64, "HS512", headers={"kid": key.kid}),
    "an unknown key id": lambda _, claims: SigningKey("key-9").sign(claims),
    "a key id that is a path": lambda _, claims: SigningKey("../../../../dev/null").sign(claims),
    "a key id that is SQL": lambda _, claims: SigningKey("x' UNION SELECT 'secret'; --").sign(claims),
    "a key id that is an address": lambda _, claims: SigningKey("https://evil.example/key").sign(claims),
    "a key id with NUL in it": lambda key, claims: SigningKey(f"{key.kid}\0").sign(claims),
    "a key id with a surrogate in it": lambda _, claims: SigningKey("\ud800").sign(claims),
}
"""Made without the provider's key."""

MISHEADED: dict[str, Forgery] = {
    "no key id": _headed(kid=None),
    "an empty key id": _headed(kid=""),
    "a key id that is a number": _headed(kid=1),
    "a key id that is a list": _headed(kid=["key-1"]),
    "an algorithm that is a list": _headed(alg=["EdDSA"]),
    "no algorithm": _headed(alg=None),
    "its own key address (jku)": _headed(jku="https://evil.example/jwks"),
    "its own key (jwk)": lambda key, claims: _headed(jwk=key.jwk)(key, claims),
    "its own certificates' address (x5u)": _headed(x5u="https://evil.example/x5u"),
    "its own certificates (x5c)": _headed(x5c=["MIIB"]),
    "an extension it calls critical": _headed(crit=["b64"], b64=True),
    "an extension it calls critical that nobody knows": _headed(crit=["x"], x=1),
    "a payload that is somewhere else (b64)": _headed(b64=False),
    "a header that is a list": _under(b"[]"),
    "a header that is no JSON": _under(b"{alg"),
    "a header that is not UTF-8": _under(b'{"alg": "\xff"}'),
    "a header that is very deep": _under(b"[" * 4_000),
    "a header with a number that is very long": _under(b'{"alg": ' + b"9" * 5_000 + b"}"),
}
"""Signed with the provider's key, and to be verified in a way that we do not take."""

MISCLAIMED: dict[str, Forgery] = {
    "a foreign issuer": _claiming(lambda _: {"iss": "https://evil.example"}),
    "an issuer that only begins like ours": _claiming(lambda claims: {"iss": claims["iss"] + "/"}),
    "a foreign audience": _claiming(lambda _: {"aud": "https://other.example"}),
    "foreign audiences": _claiming(lambda _: {"aud": ["https://other.example", ISSUER]}),
    "an audience that only begins like ours": _claiming(lambda claims: {"aud": claims["aud"] + ".evil"}),
    "no audience at all": _claiming(lambda _: {"aud": []}),
    "an audience that is an object": _claiming(lambda claims: {"aud": {claims["aud"]: True}}),
    "expired beyond the leeway": _claiming(lambda claims: {"exp": claims["exp"] - LIFE_S - 30}),
    "not valid yet, beyond the leeway": _claiming(lambda claims: {"nbf": claims["exp"] - LIFE_S + 60}),
    "an expiry that is not a number": _claiming(lambda _: {"exp": "never"}),
    "an expiry that is null": _claiming(lambda _: {"exp": None}),
    "an expiry that is not finite": _claiming(lambda _: {"exp": float("inf")}),
    "a user id with a slash": _claiming(lambda _: {"sub": "ada/../eve"}),
    "a user id that is a path": _claiming(lambda _: {"sub": ".."}),
    "a user id with a line break after it": _claiming(lambda _: {"sub": "ada\n"}),
    "a user id with NUL in it": _claiming(lambda _: {"sub": "ada\0"}),
    "a user id that is empty": _claiming(lambda _: {"sub": ""}),
    "a user id that is a number": _claiming(lambda _: {"sub": 7}),
    "a user id that is too long": _claiming(lambda _: {"sub": "a" * 129}),
    "no user id": lambda key, claims: key.sign({name: claims[name] for name in claims if name != "sub"}),
    "a payload that is a list": _saying(b"[]"),
    "a payload that is not UTF-8": _saying(b'{"sub": "\xff"}'),
    "a payload that is very deep": _saying(b'{"x":' + b"[" * 5_000),
}
"""Signed with the provider's key, and not for us, not now, or naming nobody."""

MISSHAPEN: dict[str, Forgery] = {
    "a right token that is huge": _claiming(lambda _: {"pad": "x" * 9_000}),
    "a right token of more than 100 KiB": _claiming(lambda _: {"pad": "x" * 100_000}),
    "two parts": lambda key, claims: key.sign(claims).rpartition(".")[0],
    "five parts, as an encrypted token has": lambda key, claims: key.sign(claims) + ".e30.e30",
    "very many parts": lambda key, claims: key.sign(claims) + ".e30" * 1_500,
    "nothing but dots": lambda *_: "." * 8_000,
    "nothing": lambda *_: "",
    "NUL in a right token": lambda key, claims: key.sign(claims).replace(".", ".\0", 1),
    "something after a right token": lambda key, claims: key.sign(claims) + "=",
    "a text that is no ASCII": lambda key, claims: key.sign(claims) + "\u00ff",
    "a text that is no Unicode": lambda key, claims: key.sign(claims) + "\udcff",
}
"""No such thing is a token."""

FORGERIES = UNSIGNED | MISHEADED | MISCLAIMED | MISSHAPEN
