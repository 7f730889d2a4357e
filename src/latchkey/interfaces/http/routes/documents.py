"""The published documents: the OpenAPI schema, and the API reference that is made from it."""

from functools import cached_property
from typing import Any

import msgspec
from litestar import Request, Response, get
from litestar.datastructures import State
from litestar.enums import MediaType

from latchkey.domain.errors import Exhausted, Unavailable
from latchkey.interfaces.http import openapi, reference
from latchkey.interfaces.http.middleware.security import keep_own_headers
from latchkey.interfaces.http.responses import CONTENT_ETAG, IfNoneMatch
from latchkey.interfaces.http.static_content import StaticContent

_Request = Request[None, None, State]


class PublishedDocuments:
    """The documents of a service. Each is compressed, and the page is made, when it is first requested."""

    def __init__(self, schema: dict[str, Any]) -> None:
        self._encoded_schema = msgspec.json.encode(schema)

    @cached_property
    def schema(self) -> StaticContent:
        """The OpenAPI document as JSON."""
        return StaticContent.of(self._encoded_schema, MediaType.JSON)

    @cached_property
    def page(self) -> StaticContent:
        """The API reference as HTML."""
        return StaticContent.of(reference.render(msgspec.json.decode(self._encoded_schema)).encode(), MediaType.HTML)


@get(
    openapi.PATH,
    tags=["documents"],
    failures=[Exhausted, Unavailable],
    response_headers=[CONTENT_ETAG],
    revalidates=True,
    example={"openapi": "3.1.0", "info": {"title": "Latchkey", "version": "…"}, "paths": {}},
)
async def get_schema(request: _Request, if_none_match: IfNoneMatch = None) -> Response[dict[str, Any]]:
    """Get this document: the OpenAPI 3.1 schema of the API."""
    return _send(request, request.app.state.documents.schema, if_none_match)


@get(
    reference.PATH,
    tags=["documents"],
    media_type=MediaType.HTML,
    failures=[Exhausted, Unavailable],
    response_headers=[CONTENT_ETAG],
    revalidates=True,
    example="<!doctype html>…",
)
async def get_reference(request: _Request, if_none_match: IfNoneMatch = None) -> Response[str]:
    """Get the API reference: this document as one HTML page, which can be kept and read offline."""
    response = _send(request, request.app.state.documents.page, if_none_match)
    response.headers["content-security-policy"] = reference.CONTENT_SECURITY_POLICY
    keep_own_headers(request.scope, "cache-control", "content-security-policy")
    return response


def _send(request: _Request, document: StaticContent, if_none_match: str | None) -> Response[Any]:
    """Return the document, which has no user data and may be kept."""
    response = document.response_to(request, if_none_match)
    response.headers["cache-control"] = "no-cache"
    keep_own_headers(request.scope, "cache-control")
    return response
