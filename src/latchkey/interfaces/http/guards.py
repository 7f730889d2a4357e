"""Checks ahead of each handler below `/api/{user_id}`: authentication, rate limit, user of the path, parameters."""

import re
from collections.abc import Iterable
from functools import lru_cache
from typing import Any, get_args
from urllib.parse import parse_qsl
from uuid import UUID

from litestar import Request, Response
from litestar.enums import MediaType, ParamType
from litestar.handlers import BaseRouteHandler
from msgspec import Struct

from latchkey.application.dispatcher import Dispatcher
from latchkey.domain.errors import Invalid, NotFound, WrongUser
from latchkey.domain.ports import Identity
from latchkey.interfaces.auth import owner_of
from latchkey.interfaces.http.litestar_internals import methods_of, parameters_of

LENIENT = {"lenient": True}
"""Options of controllers for clients of other protocols: unknown query parameters are ignored."""

_ME = "me"
"""In a path: the caller's own id. It is no way to the data of a user who is called `me`."""
_INTEGER = re.compile(r"-?[0-9]+")
_SINGLE_HEADERS = frozenset({b"content-type"})
"""Headers that no handler declares as a parameter, but that a request must not repeat."""
_MAX_SHOWN_CHARS = 100
"""The length at which the name of an unknown parameter is cut off in the error."""


async def before_request(request: Request[Any, Any, Any]) -> Response[None] | None:
    """Check the request. Returns the response to OPTIONS, and None for all other methods.

    A `before_request` hook and not guards: Litestar copies the route handler for each guard of each request. It takes
    the services from the application's state, because Litestar copies a router with everything that its hooks hold.
    """
    await authenticate(request)
    if request.method == "OPTIONS":
        return _allowed_methods(request)
    check_parameters(request)
    return None


async def authenticate(request: Request[Any, Any, Any]) -> None:
    """Set `request.user` to the owner that the bearer token names, and count the request against their rate limit.

    The path names the owner by id or as `me`. A handler with the option `essential` ends harm (it revokes, cancels or
    deletes), or shows what to revoke: its requests have an allowance of their own.

    Raises `Unauthenticated`, `Unavailable`, `Exhausted` beyond the rate limit, and `WrongUser` if the path names
    another user, whether or not that user exists.
    """
    identity: Identity = request.app.state.identity
    dispatcher: Dispatcher = request.app.state.dispatcher
    authorization = ", ".join(request.headers.getall("authorization", []))
    owner = await owner_of(authorization or None, identity)
    request.scope["user"] = owner
    await dispatcher.acquire(owner, essential=bool(request.route_handler.opt.get("essential")))
    if request.path_params["user_id"] not in {owner.user_id, _ME}:
        raise WrongUser("The path names another user than the bearer token.")


def _allowed_methods(request: Request[Any, Any, Any]) -> Response[None]:
    """Answer OPTIONS with every method of the path (RFC 9110, 9.3.7).

    Litestar's own answer lists only the methods that the path had when its first handler was registered.
    """
    methods = methods_of(request.app, request.scope["path_template"])
    return Response(None, status_code=204, headers={"Allow": ", ".join(methods)}, media_type=MediaType.TEXT)


class _DeclaredParameters(Struct, frozen=True, eq=False):
    """The annotations of a handler's query parameters and headers, by name."""

    query: dict[str, Any]
    headers: dict[bytes, Any]


def check_parameters(request: Request[Any, Any, Any]) -> None:
    """Check what Litestar lets pass: unknown and duplicate parameters, and unusual spellings of numbers, null and ids.

    A handler with the option `lenient` ignores unknown parameters: clients of other protocols add some of their own.

    Raises `Invalid`, and `NotFound` for an id in the path that is not in its usual form, and for NUL in the path.
    """
    declared = _declared_parameters(request.route_handler)
    if query := request.scope["query_string"]:
        _check_query(query, declared.query, is_lenient=bool(request.route_handler.opt.get("lenient")))
    _check_headers(request.scope["headers"], declared.headers)
    for id in request.path_params.values():
        if isinstance(id, UUID) and f"/{id}/" not in f"{request.scope['path'].lower()}/":
            raise NotFound("There is nothing at this path.")
        if isinstance(id, str) and "\x00" in id:
            raise NotFound("There is nothing at this path.")


def _check_query(query: bytes, declared: dict[str, Any], *, is_lenient: bool) -> None:
    seen: set[str] = set()
    for name, value in parse_qsl(query.decode("latin-1"), keep_blank_values=True):
        if name not in declared:
            if is_lenient:
                continue
            known = ", ".join(f"`{known}`" for known in declared) or "none"
            raise Invalid.at(name[:_MAX_SHOWN_CHARS], f"Unknown query parameter: this operation takes {known}")
        if name in seen:
            raise Invalid.at(name, f"Duplicate query parameter `{name}`: send it once")
        seen.add(name)
        _check_spelling(name, value, declared[name])
        if "\x00" in value:
            raise Invalid.at(name, "Expected text without NUL")


def _check_headers(headers: Iterable[tuple[bytes, bytes]], declared: dict[bytes, Any]) -> None:
    seen: set[bytes] = set()
    for name, value in headers:
        if name in declared or name in _SINGLE_HEADERS:
            if name in seen:
                raise Invalid.at(name.decode(), f"Duplicate header `{name.decode()}`: send it once")
            seen.add(name)
            _check_spelling(name.decode(), value.decode("latin-1"), declared.get(name))


def _check_spelling(name: str, value: str, annotation: Any) -> None:
    """Raise `Invalid` for spellings that Litestar accepts: `1e1` for 10, `on` for true, and `null` for no value."""
    kinds = get_args(annotation) or (annotation,)
    if int in kinds and not _INTEGER.fullmatch(value):
        raise Invalid.at(name, "Expected an integer in decimal digits")
    if bool in kinds and value not in {"true", "false"}:
        raise Invalid.at(name, "Expected `true` or `false`")
    if str not in kinds and value.lower() == "null":
        raise Invalid.at(name, "Expected a value: leave the parameter out to send none")


@lru_cache(256)
def _declared_parameters(handler: BaseRouteHandler) -> _DeclaredParameters:
    parameters = parameters_of(handler)
    return _DeclaredParameters(
        {each.name: each.annotation for each in parameters if each.location is ParamType.QUERY},
        {each.name.lower().encode(): each.annotation for each in parameters if each.location is ParamType.HEADER},
    )
