"""The document in which an identity provider publishes its keys: a JWK Set (RFC 7517) on the web."""

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

# Not compressed, so that the size is what we read, whatever it would have unpacked to.
_HEADERS = {"Accept": "application/json", "Accept-Encoding": "identity"}

Keys = dict[str, PyJWK]


class _KeySet(msgspec.Struct):
    keys: list[dict[str, Any]]


class JwksDocument:
    """Fetches the keys. Redirects are not followed: they would let another host choose whom we trust."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._client = httpx2.AsyncClient(follow_redirects=False, timeout=_TIMEOUT_S)

    async def fetch(self) -> Keys:
        """The keys that may sign for users, by their id. Raises `Unavailable` if there are none to be had."""
        try:
            async with asyncio.timeout(_TIMEOUT_S):
                keys = _usable(await self._body())
        except (httpx2.HTTPError, TimeoutError, msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            raise _unavailable() from error
        if not keys:
            raise _unavailable()
        return keys

    async def aclose(self) -> None:
        await self._client.aclose()

    async def _body(self) -> bytes:
        body = bytearray()
        async with self._client.stream("GET", self._url, headers=_HEADERS) as response:
            if response.status_code != httpx2.codes.OK:
                raise _unavailable()
            async for chunk in response.aiter_raw():
                body += chunk
                if len(body) > _MAX_BYTES:
                    raise _unavailable()
        return bytes(body)


def _usable(document: bytes) -> Keys:
    """The keys of the set that we can use, by their id; a set may well hold others (RFC 7517, 5)."""
    found = [(jwk.get("kid"), _key_of(jwk)) for jwk in msgspec.json.decode(document, type=_KeySet).keys]
    return {key_id: key for key_id, key in found if key is not None and isinstance(key_id, str)}


def _key_of(jwk: dict[str, Any]) -> PyJWK | None:
    """The key, if it is one for signatures that we take. Whatever else stands there, of whatever type, is none."""
    if jwk.get("use") not in (None, "sig") or jwk.get("alg") not in (None, *ALGORITHMS):
        return None
    try:
        key = PyJWK(jwk)
    except (PyJWTError, TypeError, ValueError):
        return None
    return key if key.algorithm_name in ALGORITHMS else None


def _unavailable() -> Unavailable:
    return Unavailable("The identity provider's keys cannot be had at the moment: try again shortly.")
