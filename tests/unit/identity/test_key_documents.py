"""The document of keys, from a provider that is mistaken, broken into, or not the provider: refused calmly, or used."""

import asyncio
import gzip
import json
from asyncio import StreamWriter
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from latchkey.domain.errors import Unauthenticated, Unavailable
from latchkey.infrastructure.identity import jwks_document as key_document
from latchkey.infrastructure.identity.jwks import JwksIdentity
from tests.unit.identity.clock import Clock
from tests.unit.identity.conftest import ClaimsOf
from tests.unit.identity.provider import AUDIENCE, ISSUER, Provider, SigningKey

WRONG_VALUES = [
    *(None, True, -1, 1.5, 10**100, "", "=", "!!", "\0", "A" * 100),
    *([], ["sig"], {}, {"a": 1}, "none", "HS256", "EdDSA", "P-256", "X25519", "Ed448", "oct", "AQAB"),
]
NAMES = ["kty", "alg", "use", "kid", "crv", "x", "y", "n", "e", "d", "k", "key_ops", "x5c"]
KINDS = [
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
async def test_a_document_that_is_none_is_an_outage(
    body: bytes, identity: JwksIdentity, provider: Provider, key: SigningKey, claims: ClaimsOf
) -> None:
    provider.body = body
    with pytest.raises(Unavailable):
        await identity.authenticate(key.sign(claims()))


async def endless(writer: StreamWriter) -> None:
    """Valid JSON as far as it goes; it goes on for ever."""
    writer.write(b'HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nb\r\n{"keys": [ \r\n')
    while not writer.is_closing():
        writer.write(b"1000\r\n" + b" " * 0x1000 + b"\r\n")
        await writer.drain()


async def dripping(writer: StreamWriter) -> None:
    """One byte after the other, each before anybody loses patience with the next."""
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
async def test_a_provider_that_does_not_answer_as_one_does_is_an_outage(
    act: Any,
    identity: JwksIdentity,
    provider: Provider,
    key: SigningKey,
    claims: ClaimsOf,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Soon over, and over for good: the next answer is read as if nothing had been."""
    monkeypatch.setattr(key_document, "_TIMEOUT_S", 0.5)
    provider.act = act
    with pytest.raises(Unavailable):
        await asyncio.wait_for(identity.authenticate(key.sign(claims())), 5)
    await asyncio.wait_for(provider.idle.wait(), 5)


async def test_a_packed_document_is_not_unpacked(
    identity: JwksIdentity, provider: Provider, key: SigningKey, claims: ClaimsOf
) -> None:
    """Nobody asked for one; a few bytes of it can be gigabytes."""
    provider.body = gzip.compress(json.dumps({"keys": [key.jwk]}).encode())
    provider.headers = "Content-Encoding: gzip\r\n"
    with pytest.raises(Unavailable):
        await identity.authenticate(key.sign(claims()))


async def test_a_document_beyond_the_size_limit_is_an_outage(
    identity: JwksIdentity, provider: Provider, key: SigningKey, claims: ClaimsOf
) -> None:
    provider.body = json.dumps({"keys": [key.jwk], "padding": "x" * 300_000}).encode()
    with pytest.raises(Unavailable):
        await identity.authenticate(key.sign(claims()))


async def test_ten_thousand_keys_are_too_many(
    identity: JwksIdentity, provider: Provider, key: SigningKey, claims: ClaimsOf
) -> None:
    """They are beyond the size limit; as many as are not are read, and the right one is found among them."""
    many = [{**KINDS[0].jwk, "kid": f"k{n}"} for n in range(10_000)]
    provider.body = json.dumps({"keys": [*many, key.jwk]}).encode()
    with pytest.raises(Unavailable):
        await identity.authenticate(key.sign(claims()))


async def test_a_thousand_keys_are_not(
    identity: JwksIdentity, provider: Provider, key: SigningKey, claims: ClaimsOf
) -> None:
    many = [{**KINDS[0].jwk, "kid": f"k{n}"} for n in range(1_000)]
    provider.body = json.dumps({"keys": [*many, key.jwk]}).encode()
    assert await identity.authenticate(key.sign(claims())) == "ada"


async def test_of_keys_with_the_same_id_the_last_that_can_be_used_counts(
    identity: JwksIdentity, provider: Provider, key: SigningKey, claims: ClaimsOf
) -> None:
    """There should be no such (RFC 7517, 4.5); that there are does not make anything but that key's tokens right."""
    other = SigningKey(key.kid)
    unusable = {**KINDS[2].jwk, "kid": key.kid, "use": "enc"}
    provider.body = json.dumps({"keys": [other.jwk, key.jwk, unusable]}).encode()
    assert await identity.authenticate(key.sign(claims())) == "ada"
    with pytest.raises(Unauthenticated):
        await identity.authenticate(other.sign(claims()))


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.algorithm)
async def test_a_key_with_something_wrong_about_it_does_not_spoil_the_others(
    kind: SigningKey, identity: JwksIdentity, provider: Provider, key: SigningKey, claims: ClaimsOf
) -> None:
    """Each member of a key in turn is each of the things that it must not be."""
    wrong = [
        {**kind.jwk, "kid": f"{kind.kid}-{n}", name: value} for n, value in enumerate(WRONG_VALUES) for name in NAMES
    ]
    provider.body = json.dumps({"keys": [*wrong, key.jwk]}).encode()
    assert await identity.authenticate(key.sign(claims())) == "ada"


@pytest.mark.filterwarnings("ignore::jwt.warnings.InsecureKeyLengthWarning")  # from whoever signs with it
async def test_a_key_that_is_too_weak_signs_for_nobody(
    identity: JwksIdentity, provider: Provider, claims: ClaimsOf
) -> None:
    """RSA has 2048 bits at least (RFC 7518, 3.3)."""
    weak = SigningKey("weak", rsa.generate_private_key(65537, 1024))  # noqa: S505  # that is the point
    provider.keys.append(weak)
    with pytest.raises(Unauthenticated):
        await identity.authenticate(weak.sign(claims()))


async def test_a_redirect_is_an_outage(provider: Provider, key: SigningKey, claims: ClaimsOf, clock: Clock) -> None:
    """Who answers for the configured address must not pass us on to somebody else's keys."""
    async with Provider(key) as elsewhere:
        provider.status, provider.headers = "302 Found", f"Location: {elsewhere.url}\r\n"
        identity = JwksIdentity(provider.url, ISSUER, AUDIENCE, now=clock, clock=clock)
        with pytest.raises(Unavailable):
            await identity.authenticate(key.sign(claims()))
        await identity.aclose()
        assert elsewhere.fetches == 0


async def test_keys_for_other_uses_do_not_sign_for_users(
    identity: JwksIdentity, provider: Provider, key: SigningKey, claims: ClaimsOf
) -> None:
    """The set may hold keys for encryption, symmetric ones and ones of unknown kinds: they are passed over."""
    sealing = SigningKey("sealing")
    shared = {"kty": "oct", "kid": "shared", "k": "c2VjcmV0LXNlY3JldC1zZWNyZXQtc2VjcmV0", "alg": "HS256"}
    odd = [{"kty": "???", "kid": "odd"}, {"kty": "OKP", "crv": "Ed25519", "x": 5}, {"kty": "EC", "alg": ["ES256"]}]
    document = {"keys": [{**sealing.jwk, "use": "enc"}, shared, *odd, {**key.jwk, "use": "sig"}]}
    provider.body = json.dumps(document).encode()
    assert await identity.authenticate(key.sign(claims())) == "ada"
    with pytest.raises(Unauthenticated):
        await identity.authenticate(sealing.sign(claims()))
