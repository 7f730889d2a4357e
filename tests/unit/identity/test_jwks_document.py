"""The document of keys, from a provider that is mistaken, broken into, or not the provider: refused calmly, or used."""

import asyncio
import gzip
import json
from asyncio import StreamWriter
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from latchkey.domain.errors import Unauthenticated, Unavailable
from latchkey.infrastructure.identity import jwks_document
from latchkey.infrastructure.identity.jwks import JwksIdentity
from tests.fakes.jwks_provider import AUDIENCE, ISSUER, JwksProvider, SigningKey
from tests.unit.identity.clock import Clock
from tests.unit.identity.conftest import ClaimsOf

WRONG_VALUES = [
    *(None, True, -1, 1.5, 10**100, "", "=", "!!", "\0", "A" * 100),
    *([], ["sig"], {}, {"a": 1}, "none", "HS256", "EdDSA", "P-256", "X25519", "Ed448", "oct", "AQAB"),
]
NAMES = ["kty", "alg", "use", "kid", "crv", "x", "y", "n", "e", "d", "k", "key_ops", "x5c"]
KEY_TYPES = [
    SigningKey("ed"),
    SigningKey("ec", ec.generate_private_key(ec.SECP256R1())),
    SigningKey("rsa", rsa.generate_private_key(65537, 2048)),
]


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"<html>",
        b"{}",
        b'{"keys": []}',
        b'{"keys": [7]}',
        b'{"keys": null}',
        b'{"keys": {"key-1": {}}}',
        b"[]",
        b'{"keys": [{"kid": "\xff"}]}',
        rb'{"keys": [{"kid": "\ud800"}]}',
        b'{"keys": [{"kty": "oct", "kid": "shared", "k": "c2VjcmV0LXNlY3JldC1zZWNyZXQ"}]}',
        b'{"keys": [], "x": ' + b"[" * 100_000,
    ],
    ids=[
        "empty",
        "html",
        "other",
        "no keys",
        "numbers",
        "null",
        "an object",
        "a list",
        "not UTF-8",
        "surrogate",
        "symmetric",
        "deep",
    ],
)
async def test_jwks_document_that_is_invalid_is_unavailable(
    body: bytes, identity: JwksIdentity, provider: JwksProvider, key: SigningKey, claims: ClaimsOf
) -> None:
    provider.body = body
    with pytest.raises(Unavailable):
        await identity.authenticate(key.sign(claims()))


async def endless(writer: StreamWriter) -> None:
    """Valid JSON so far, without an end."""
    writer.write(b'HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nb\r\n{"keys": [ \r\n')
    while not writer.is_closing():
        writer.write(b"1000\r\n" + b" " * 0x1000 + b"\r\n")
        await writer.drain()


async def dripping(writer: StreamWriter) -> None:
    """One byte at a time, each within the read timeout."""
    writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
    while not writer.is_closing():
        writer.write(b"1\r\n \r\n")
        await writer.drain()
        await asyncio.sleep(0.01)


async def cut_short(writer: StreamWriter) -> None:
    writer.write(b'HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n{"keys": [')


async def no_http(writer: StreamWriter) -> None:
    writer.write(b"220 mail.example ESMTP\r\n")


async def endless_head(writer: StreamWriter) -> None:
    writer.write(b"HTTP/1.1 200 OK\r\n")
    while not writer.is_closing():
        writer.write(b"X-Padding: " + b"x" * 4_000 + b"\r\n")
        await writer.drain()


@pytest.mark.parametrize("act", [endless, dripping, cut_short, no_http, endless_head])
async def test_jwks_document_response_that_is_broken_is_unavailable_within_the_timeout(
    act: Any,
    identity: JwksIdentity,
    provider: JwksProvider,
    key: SigningKey,
    claims: ClaimsOf,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The connection is closed as well."""
    monkeypatch.setattr(jwks_document, "_TIMEOUT_S", 0.5)
    provider.act = act
    with pytest.raises(Unavailable):
        await asyncio.wait_for(identity.authenticate(key.sign(claims())), 5)
    await asyncio.wait_for(provider.idle.wait(), 5)


async def test_jwks_document_that_is_compressed_is_unavailable(
    identity: JwksIdentity, provider: JwksProvider, key: SigningKey, claims: ClaimsOf
) -> None:
    """The request does not accept compression: a few bytes can expand to gigabytes."""
    provider.body = gzip.compress(json.dumps({"keys": [key.jwk]}).encode())
    provider.headers = "Content-Encoding: gzip\r\n"
    with pytest.raises(Unavailable):
        await identity.authenticate(key.sign(claims()))


async def test_jwks_document_over_the_size_limit_is_unavailable(
    identity: JwksIdentity, provider: JwksProvider, key: SigningKey, claims: ClaimsOf
) -> None:
    provider.body = json.dumps({"keys": [key.jwk], "padding": "x" * 300_000}).encode()
    with pytest.raises(Unavailable):
        await identity.authenticate(key.sign(claims()))


async def test_jwks_document_with_10000_keys_is_over_the_size_limit(
    identity: JwksIdentity, provider: JwksProvider, key: SigningKey, claims: ClaimsOf
) -> None:
    """A document within the size limit is read whole, see the next test."""
    many = [{**KEY_TYPES[0].jwk, "kid": f"k{n}"} for n in range(10_000)]
    provider.body = json.dumps({"keys": [*many, key.jwk]}).encode()
    with pytest.raises(Unavailable):
        await identity.authenticate(key.sign(claims()))


async def test_jwks_document_with_1000_keys_is_read(
    identity: JwksIdentity, provider: JwksProvider, key: SigningKey, claims: ClaimsOf
) -> None:
    many = [{**KEY_TYPES[0].jwk, "kid": f"k{n}"} for n in range(1_000)]
    provider.body = json.dumps({"keys": [*many, key.jwk]}).encode()
    assert await identity.authenticate(key.sign(claims())) == "ada"


async def test_jwks_document_with_duplicate_key_ids_uses_the_last_usable_key(
    identity: JwksIdentity, provider: JwksProvider, key: SigningKey, claims: ClaimsOf
) -> None:
    """RFC 7517, 4.5 advises against duplicate ids. A token of the other key stays unauthenticated."""
    other = SigningKey(key.kid)
    unusable = {**KEY_TYPES[2].jwk, "kid": key.kid, "use": "enc"}
    provider.body = json.dumps({"keys": [other.jwk, key.jwk, unusable]}).encode()
    assert await identity.authenticate(key.sign(claims())) == "ada"
    with pytest.raises(Unauthenticated):
        await identity.authenticate(other.sign(claims()))


@pytest.mark.parametrize("key_type", KEY_TYPES, ids=lambda key_type: key_type.algorithm)
async def test_jwks_document_with_malformed_keys_still_provides_the_valid_ones(
    key_type: SigningKey, identity: JwksIdentity, provider: JwksProvider, key: SigningKey, claims: ClaimsOf
) -> None:
    """Each member of a key has each of the wrong values in turn."""
    wrong = [
        {**key_type.jwk, "kid": f"{key_type.kid}-{n}", name: value}
        for n, value in enumerate(WRONG_VALUES)
        for name in NAMES
    ]
    provider.body = json.dumps({"keys": [*wrong, key.jwk]}).encode()
    assert await identity.authenticate(key.sign(claims())) == "ada"


@pytest.mark.filterwarnings("ignore::jwt.warnings.InsecureKeyLengthWarning")  # raised when the test signs
async def test_jwks_signature_of_a_weak_rsa_key_is_unauthenticated(
    identity: JwksIdentity, provider: JwksProvider, claims: ClaimsOf
) -> None:
    """RSA keys need 2048 bits (RFC 7518, 3.3)."""
    weak = SigningKey("weak", rsa.generate_private_key(65537, 1024))  # noqa: S505  # the test needs a weak key
    provider.keys.append(weak)
    with pytest.raises(Unauthenticated):
        await identity.authenticate(weak.sign(claims()))


async def test_jwks_document_redirect_is_not_followed(
    provider: JwksProvider, key: SigningKey, claims: ClaimsOf, clock: Clock
) -> None:
    """A redirect would let another host choose the trusted keys."""
    async with JwksProvider(key) as elsewhere:
        provider.status, provider.headers = "302 Found", f"Location: {elsewhere.url}\r\n"
        identity = JwksIdentity(provider.url, ISSUER, AUDIENCE, now=clock, clock=clock)
        with pytest.raises(Unavailable):
            await identity.authenticate(key.sign(claims()))
        await identity.aclose()
        assert elsewhere.fetches == 0


async def test_jwks_document_ignores_keys_that_are_not_for_signatures(
    identity: JwksIdentity, provider: JwksProvider, key: SigningKey, claims: ClaimsOf
) -> None:
    """Such as keys for encryption, symmetric keys and keys of unknown types."""
    encryption = SigningKey("encryption")
    shared = {"kty": "oct", "kid": "shared", "k": "c2VjcmV0LXNlY3JldC1zZWNyZXQtc2VjcmV0", "alg": "HS256"}
    odd = [{"kty": "???", "kid": "odd"}, {"kty": "OKP", "crv": "Ed25519", "x": 5}, {"kty": "EC", "alg": ["ES256"]}]
    document = {"keys": [{**encryption.jwk, "use": "enc"}, shared, *odd, {**key.jwk, "use": "sig"}]}
    provider.body = json.dumps(document).encode()
    assert await identity.authenticate(key.sign(claims())) == "ada"
    with pytest.raises(Unauthenticated):
        await identity.authenticate(encryption.sign(claims()))
