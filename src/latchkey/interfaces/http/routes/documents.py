"""The published documents: the OpenAPI schema, and the API reference that is made from it."""

from collections.abc import Callable
from hashlib import sha256
from typing import Any

import msgspec
from litestar import Request, Response, get
from litestar.datastructures import State
from litestar.enums import MediaType
from msgspec import Struct

from latchkey.domain.errors import Exhausted
from latchkey.interfaces.http import openapi, reference
from latchkey.interfaces.http.middleware.security import keep_own_headers
from latchkey.interfaces.http.responses import CONTENT_ETAG, IfNoneMatch, is_current

_Request = Request[None, None, State]


class _Document(Struct, frozen=True):
    """An encoded document, which does not change while the process runs, and its entity tag."""

    body: bytes
    etag: str

    @classmethod
    def of(cls, body: bytes) -> "_Document":
        """Return the document with a strong entity tag, which is a digest of its bytes."""
        return cls(body, f'"{sha256(body).hexdigest()[:32]}"')


class PublishedDocuments:
    """The documents of a service. The page is made when it is first requested."""

    def __init__(self, schema: dict[str, Any], render: Callable[[dict[str, Any]], str] = reference.render) -> None:
        self.schema = _Document.of(msgspec.json.encode(schema))
        self._render = render
        self._page: _Document | None = None

    @property
    def page(self) -> _Document:
        """The API reference as HTML."""
        if self._page is None:
            self._page = _Document.of(self._render(msgspec.json.decode(self.schema.body)).encode())
        return self._page


@get(
    openapi.PATH,
    tags=["documents"],
    failures=[Exhausted],
    response_headers=[CONTENT_ETAG],
    revalidates=True,
    example={"openapi": "3.1.0", "info": {"title": "Latchkey", "version": "…"}, "paths": {}},
)
async def get_schema(request: _Request, if_none_match: IfNoneMatch = None) -> Response[dict[str, Any]]:
    """Get this document: the OpenAPI 3.1 schema of the API."""
    return _send(request, request.app.state.documents.schema, if_none_match, MediaType.JSON)


@get(
    reference.PATH,
    tags=["documents"],
    media_type=MediaType.HTML,
    failures=[Exhausted],
    response_headers=[CONTENT_ETAG],
    revalidates=True,
    example="<!doctype html>…",
)
async def get_reference(request: _Request, if_none_match: IfNoneMatch = None) -> Response[str]:
    """Get the API reference: this document as one HTML page, which can be kept and read offline."""
    response = _send(request, request.app.state.documents.page, if_none_match, MediaType.HTML)
    response.headers["content-security-policy"] = reference.CONTENT_SECURITY_POLICY
    keep_own_headers(request.scope, "cache-control", "content-security-policy")
    return response


def _send(request: _Request, document: _Document, if_none_match: str | None, media_type: MediaType) -> Response[Any]:
    """Return the document, or 304 if the client has it. It has no user data, and may be kept."""
    headers = {"etag": document.etag, "cache-control": "no-cache"}
    keep_own_headers(request.scope, "cache-control")
    if is_current(if_none_match, document.etag):
        return Response(None, status_code=304, headers=headers, media_type=MediaType.TEXT)
    return Response(document.body, headers=headers, media_type=media_type)
