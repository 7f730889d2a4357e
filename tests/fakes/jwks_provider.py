"""A fake identity provider: real keys, real signatures, and an HTTP server for its JWKS document."""

import asyncio
import json
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any, Self

import jwt
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from jwt.algorithms import ECAlgorithm, OKPAlgorithm, RSAAlgorithm

ISSUER = "https://auth.example"
AUDIENCE = "https://api.example"
PrivateKey = Ed25519PrivateKey | ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey


class SigningKey:
    """A key pair of the provider, and its signature algorithm."""

    def __init__(self, kid: str, private: PrivateKey | None = None) -> None:
        self.kid = kid
        self.private = private or Ed25519PrivateKey.generate()

    @property
    def algorithm(self) -> str:
        if isinstance(self.private, Ed25519PrivateKey):
            return "EdDSA"
        return "ES256" if isinstance(self.private, ec.EllipticCurvePrivateKey) else "RS256"

    @property
    def jwk(self) -> dict[str, Any]:
        """The public key as Better Auth publishes it: without `use`."""
        public = self.private.public_key()
        shapes: dict[str, Callable[..., dict[str, Any]]] = {
            "EdDSA": OKPAlgorithm.to_jwk,
            "ES256": ECAlgorithm.to_jwk,
            "RS256": RSAAlgorithm.to_jwk,
        }
        return {**shapes[self.algorithm](public, as_dict=True), "kid": self.kid, "alg": self.algorithm}

    def sign(self, claims: dict[str, Any], **header: Any) -> str:
        return jwt.encode(claims, self.private, self.algorithm, headers={"kid": self.kid, **header})


class JwksProvider:
    """Serves the keys on loopback and records requests. `act`, if set, replaces the normal response.

    `idle` is set when no request is open. While `gate` is not set, responses wait; `requested` is set by a request.
    """

    def __init__(self, *keys: SigningKey) -> None:
        self.keys = list(keys)
        self.fetches = 0
        self.status = "200 OK"
        self.body: bytes | None = None
        self.headers = ""
        self.act: Callable[[asyncio.StreamWriter], Awaitable[None]] | None = None
        self.requests: list[bytes] = []
        self.gate = asyncio.Event()
        self.requested = asyncio.Event()
        self.gate.set()
        self.idle = asyncio.Event()
        self._server: asyncio.Server | None = None
        self._port = 0

    async def __aenter__(self) -> Self:
        await self.up()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.down()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._port}/api/auth/jwks"

    @property
    def variables(self) -> dict[str, str]:
        """Environment variables of a service that trusts this provider instead of a shared secret."""
        return {
            "LATCHKEY_AUTH_SECRET": "",
            "LATCHKEY_AUTH_JWKS_URL": self.url,
            "LATCHKEY_AUTH_ISSUER": ISSUER,
            "LATCHKEY_AUTH_AUDIENCE": AUDIENCE,
        }

    async def up(self) -> None:
        """Listen; after `down()` on the same port as before."""
        self._server = await asyncio.start_server(self._handle, "127.0.0.1", self._port)
        self._port = self._server.sockets[0].getsockname()[1]

    async def down(self) -> None:
        """Stop listening: connections are refused."""
        if self._server is not None:
            self._server.close()
            await self._server.wait_closed()
            self._server = None

    async def _handle(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.idle.clear()
        self.requests.append(await reader.readuntil(b"\r\n\r\n"))
        self.fetches += 1
        self.requested.set()
        await self.gate.wait()
        with suppress(ConnectionError):
            await (self.act or self._publish)(writer)
        writer.close()
        self.idle.set()

    async def _publish(self, writer: asyncio.StreamWriter) -> None:
        body = json.dumps({"keys": [key.jwk for key in self.keys]}).encode() if self.body is None else self.body
        head = f"HTTP/1.1 {self.status}\r\nContent-Length: {len(body)}\r\n{self.headers}Connection: close\r\n\r\n"
        writer.write(head.encode() + body)
