"""HTTP responses of `/mcp`: status, JSON body and headers, and the responses to refused requests."""

import re
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

import msgspec
from mcp_types import INTERNAL_ERROR, INVALID_REQUEST, METHOD_NOT_FOUND, PARSE_ERROR
from msgspec import Struct

from latchkey.domain.errors import Failure, Invalid, Malformed, NotFound, Unauthenticated
from latchkey.interfaces.errors import status_of

Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
Header = tuple[bytes, bytes]

_JSON = (b"content-type", b"application/json")
# Characters that an `error_description` must not contain (RFC 6750, 3).
_UNQUOTABLE = re.compile(r"[^\x20\x21\x23-\x5b\x5d-\x7e]")


class HttpResponse(Struct, frozen=True):
    """An HTTP response with a JSON body, or without a body. `failure` is the failure that it reports, for the log."""

    status: int
    body: bytes = b""
    headers: tuple[Header, ...] = ()
    failure: Failure | None = None

    async def send(self, send: Send) -> None:
        """Send the response to the ASGI server."""
        length = (b"content-length", b"%d" % len(self.body))
        headers = [*((_JSON,) if self.body else ()), length, *self.headers]
        await send({"type": "http.response.start", "status": self.status, "headers": headers})
        await send({"type": "http.response.body", "body": self.body})


def failure_response(failure: Failure, *headers: Header) -> HttpResponse:
    """Return the response to a failed request: the HTTP status of the failure, and a JSON-RPC error as the body."""
    seconds = failure.retry_after
    if seconds is not None:
        headers = (*headers, (b"retry-after", str(seconds).encode()))
    body = error_body(_code(failure), f"{failure.code}: {failure.detail}")
    return HttpResponse(status_of(failure), body, headers, failure)


def challenge(failure: Failure, metadata_url: str | None, *, has_token: bool) -> Header:
    """Return `WWW-Authenticate` (RFC 6750, 3) with the URL of the resource metadata (RFC 9728, 5.1).

    A request without a bearer token is not told an error (RFC 6750, 3.1).
    """
    parameters = [f'resource_metadata="{metadata_url}"'] if metadata_url else []
    if has_token:
        description = _UNQUOTABLE.sub("'", failure.detail)
        parameters += ['error="invalid_token"', f'error_description="{description}"']
    return b"www-authenticate", f"Bearer {', '.join(parameters)}".strip().encode("ascii", "replace")


def error_body(code: int, message: str) -> bytes:
    """Return a JSON-RPC error for a request whose id is unknown."""
    return msgspec.json.encode({"jsonrpc": "2.0", "id": None, "error": {"code": code, "message": message}})


def failure_of(code: int, message: str) -> Failure:
    """Return the failure that a JSON-RPC error means, for the log."""
    if code == INTERNAL_ERROR:
        return Failure(message)
    return NotFound(message) if code == METHOD_NOT_FOUND else Invalid(message)


def _code(failure: Failure) -> int:
    """A refused credential is an invalid request, because clients give -32000 and -32001 another meaning."""
    if isinstance(failure, Malformed):
        return PARSE_ERROR
    return INVALID_REQUEST if isinstance(failure, Unauthenticated | Invalid) else INTERNAL_ERROR
