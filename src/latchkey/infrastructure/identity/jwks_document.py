"""The JWKS document (RFC 7517): fetches it from the identity provider and reads the usable signing keys."""

import asyncio
from typing import Any

import httpx2
import msgspec
from jwt import PyJWK
from jwt.exceptions import PyJWTError

from latchkey.domain.errors import Unavailable

ALGORITHMS = ("EdDSA", "ES256", "RS256")

_MAX_BYTES = 256 * 1024
_TIMEOUT_S = 5.0

# No compression, so that `_MAX_BYTES` bounds what is read: a small compressed body can expand to gigabytes.
_HEADERS = {"Accept": "application/json", "Accept-Encoding": "identity"}


class _JwkSet(msgspec.Struct):
    keys: list[dict[str, Any]]


class JwksDocument:
    """The document at a URL. Redirects are not followed: they would let another host choose the trusted keys."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._client = httpx2.AsyncClient(follow_redirects=False, timeout=_TIMEOUT_S)

    async def fetch(self) -> dict[str, PyJWK]:
        """Return the keys that may sign tokens, by key id. Raises `Unavailable` if there is none."""
        try:
            async with asyncio.timeout(_TIMEOUT_S):
                keys = _signing_keys(await self._read_body())
        except (httpx2.HTTPError, TimeoutError, msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            raise _unavailable() from error
        if not keys:
            raise _unavailable()
        return keys

    async def aclose(self) -> None:
        await self._client.aclose()

    async def _read_body(self) -> bytes:
        body = bytearray()
        async with self._client.stream("GET", self._url, headers=_HEADERS) as response:
            if response.status_code != httpx2.codes.OK:
                raise _unavailable()
            async for chunk in response.aiter_raw():
                body += chunk
                if len(body) > _MAX_BYTES:
                    raise _unavailable()
        return bytes(body)


def _signing_keys(document: bytes) -> dict[str, PyJWK]:
    """The usable keys of the set by key id. A set may contain other keys, which are ignored (RFC 7517, 5)."""
    keys = [(jwk.get("kid"), _signing_key(jwk)) for jwk in msgspec.json.decode(document, type=_JwkSet).keys]
    return {key_id: key for key_id, key in keys if key is not None and isinstance(key_id, str)}


def _signing_key(jwk: dict[str, Any]) -> PyJWK | None:
    """Parse a key for signatures with one of `ALGORITHMS`; None for any other key, and for one that is malformed."""
    if jwk.get("use") not in (None, "sig") or jwk.get("alg") not in (None, *ALGORITHMS):
        return None
    try:
        key = PyJWK(jwk)
    except (PyJWTError, TypeError, ValueError):
        return None
    return key if key.algorithm_name in ALGORITHMS else None


def _unavailable() -> Unavailable:
    return Unavailable("The identity provider's keys are not available: try again shortly.")
