"""The answers that MCP's HTTP transport gives before, or instead of, the server's."""

import re

import msgspec
from mcp_types import INTERNAL_ERROR, INVALID_REQUEST, PARSE_ERROR

from latchkey.domain.errors import Failure, Invalid, Malformed, Unauthenticated
from latchkey.interfaces.errors import status_of
from latchkey.interfaces.mcp.http.response import Header, HttpResponse

# What a description must not have in it (RFC 6750, 3).
_UNQUOTABLE = re.compile(r"[^\x20\x21\x23-\x5b\x5d-\x7e]")


def refusal_of(failure: Failure, *headers: Header) -> HttpResponse:
    """A failure as an answer: its HTTP status, and a JSON-RPC error, which is what MCP clients read."""
    seconds = failure.retry_after
    if seconds is not None:
        headers = (*headers, (b"retry-after", str(seconds).encode()))
    return HttpResponse(status_of(failure), error_body(_code(failure), f"{failure.code}: {failure.detail}"), headers)


def challenge(failure: Failure, metadata_url: str | None, *, given: bool) -> Header:
    """`WWW-Authenticate` (RFC 6750, 3) with the address of the resource's metadata (RFC 9728, 5.1)."""
    parameters = [f'resource_metadata="{metadata_url}"'] if metadata_url else []
    if given:
        description = _UNQUOTABLE.sub("'", failure.detail)
        parameters += ['error="invalid_token"', f'error_description="{description}"']
    return b"www-authenticate", f"Bearer {', '.join(parameters)}".strip().encode("ascii", "replace")


def error_body(code: int, message: str) -> bytes:
    """A JSON-RPC error of a request whose id nobody has read."""
    return msgspec.json.encode({"jsonrpc": "2.0", "id": None, "error": {"code": code, "message": message}})


def _code(failure: Failure) -> int:
    """A refused credential is an invalid request: clients take -32000 and -32001 for something else."""
    if isinstance(failure, Malformed):
        return PARSE_ERROR
    return INVALID_REQUEST if isinstance(failure, Unauthenticated | Invalid) else INTERNAL_ERROR
