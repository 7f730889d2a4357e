"""`GET /`: the web console for browsers, and a JSON document that names the service for other clients."""

import asyncio
import re
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path

import msgspec
from litestar import Request, Response, route
from litestar.datastructures import State
from litestar.di import NamedDependency
from litestar.enums import HttpMethod
from litestar.params import FromPath
from litestar.types import HTTPScope
from msgspec import Struct

from latchkey.domain.errors import NotFound
from latchkey.interfaces.http.middleware.security import keep_own_headers
from latchkey.interfaces.http.openapi import PATH as SCHEMA_PATH
from latchkey.interfaces.http.reference import PATH as REFERENCE_PATH
from latchkey.interfaces.http.requests import JSON
from latchkey.interfaces.http.static_content import StaticContent

CONTENT_SECURITY_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self';"
    " font-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
"""Only files of this origin, and nothing inline: text of a model or a user never becomes a script."""

_FOLDER = Path(__file__).parent / "static"
_PAGE = "index.html"
_TOKEN = b'<meta name="latchkey-token" content="'
"""In the page: the place of the token of `--dev`."""
_HTML = "text/html"
_MEDIA_TYPES = {
    ".css": "text/css",
    ".html": "text/html",
    ".js": "text/javascript",
    ".svg": "image/svg+xml",
    ".txt": "text/plain",
}
"""Litestar adds the encoding, UTF-8, to those of text."""
_HASHED = re.compile(r"-[\w-]{8}\.\w+\Z")
"""The end of a file name that contains a digest of the file."""
_FOREVER, _REVALIDATE, _NO_STORE = "public, max-age=31536000, immutable", "no-cache", "no-store"
_METHODS = [HttpMethod.GET, HttpMethod.HEAD]

ConsoleRequest = Request[None, None, State]


class Console:
    """The files of the console. Each is read and compressed when it is first requested, and then kept.

    `token_for` returns a token that the page of a request signs in with, or None.
    """

    def __init__(self, token_for: Callable[[HTTPScope], str | None] | None = None, folder: Path = _FOLDER) -> None:
        self._token_for = token_for
        self._folder = folder
        self._files: dict[str, StaticContent] = {}

    async def page(self, request: ConsoleRequest) -> Response[bytes]:
        """Return the page. A page with a token is never stored."""
        file = await self._read(_PAGE)
        token = self._token_for(request.scope) if self._token_for else None
        if token is None:
            return _with_own_headers(request, file.response_to(request, _if_none_match(request)), _REVALIDATE)
        body = file.body.replace(_TOKEN, _TOKEN + token.encode(), 1)
        return _with_own_headers(request, Response(body, media_type=file.media_type), _NO_STORE)

    async def asset(self, request: ConsoleRequest, name: str) -> Response[bytes]:
        """Return a file that the page refers to. Raises `NotFound` for any other name."""
        if name == _PAGE or name not in await asyncio.to_thread(self._names):
            raise NotFound("There is nothing at this path.")
        response = (await self._read(name)).response_to(request, _if_none_match(request))
        return _with_own_headers(request, response, _FOREVER if _HASHED.search(name) else _REVALIDATE)

    def _names(self) -> set[str]:
        return {path.name for path in self._folder.iterdir()}

    async def _read(self, name: str) -> StaticContent:
        if name not in self._files:
            self._files[name] = await asyncio.to_thread(_read_file, self._folder / name)
        return self._files[name]


def _read_file(path: Path) -> StaticContent:
    return StaticContent.of(path.read_bytes(), _MEDIA_TYPES[path.suffix])


def _if_none_match(request: ConsoleRequest) -> str | None:
    return request.headers.get("if-none-match")


def _with_own_headers(request: ConsoleRequest, response: Response[bytes], cache_control: str) -> Response[bytes]:
    response.headers["content-security-policy"] = CONTENT_SECURITY_POLICY
    response.headers["cache-control"] = cache_control
    response.headers["cross-origin-opener-policy"] = "same-origin"
    response.headers["vary"] = "Accept, Accept-Encoding"
    keep_own_headers(request.scope, "content-security-policy", "cache-control")
    return response


class ServiceDescription(Struct, frozen=True):
    """The name and version of the service, and the paths of its documents and endpoints."""

    name: str
    version: str
    documents: dict[str, str]


_DESCRIPTION = {
    "openapi": SCHEMA_PATH,
    "docs": REFERENCE_PATH,
    "health": "/health/ready",
    "api": "/api/{user_id}",
    "mcp": "/mcp",
}


@route("/", http_method=_METHODS, include_in_schema=False)
async def get_index(request: ConsoleRequest, console: NamedDependency[Console | None]) -> Response[bytes]:
    """Get the console if the client is a browser and the console is on, and otherwise the service's description."""
    if console is not None and _HTML in request.headers.get("accept", "").lower():
        return await console.page(request)
    body = msgspec.json.encode(ServiceDescription("latchkey", version("latchkey-server"), _DESCRIPTION))
    return Response(body, media_type=JSON, headers={"vary": "Accept"})


@route("/console/{name:str}", http_method=_METHODS, include_in_schema=False)
async def get_console_file(
    request: ConsoleRequest, console: NamedDependency[Console], name: FromPath[str]
) -> Response[bytes]:
    """Get a file of the console."""
    return await console.asset(request, name)
