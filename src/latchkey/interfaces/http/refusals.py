"""What an operation may refuse, and how that is published: a response for each status, with the codes behind it."""

from inspect import getdoc
from typing import Any

from litestar.handlers import HTTPRouteHandler
from litestar.routes import HTTPRoute

from latchkey.domain import errors
from latchkey.domain.errors import Failure
from latchkey.interfaces.errors import Misdirected, status_of
from latchkey.interfaces.http.components import Components
from latchkey.interfaces.http.headers import REQUEST_ID
from latchkey.interfaces.http.problems import MEDIA_TYPE, Mistake, Problem

Kind = type[Failure]

_NAMED = 2
"""A response with more kinds than that has no name that anybody would recognise, and one place where it is used."""

_OF_ANY: tuple[Kind, ...] = (errors.Malformed, Misdirected, errors.Forbidden, Mistake)
_OF_SECURED: tuple[Kind, ...] = (
    errors.Unauthenticated,
    errors.WrongUser,
    errors.Invalid,
    errors.Exhausted,
    errors.Unavailable,
)
_OF_BODIES: tuple[Kind, ...] = (errors.Malformed, errors.TooLarge, errors.UnsupportedMediaType)
_OF_IDS: tuple[Kind, ...] = (errors.NotFound,)
_OF_CONDITIONS: tuple[Kind, ...] = (errors.Malformed, errors.StaleVersion)


def refusals(route: HTTPRoute, handler: HTTPRouteHandler, components: Components) -> dict[str, Any]:
    """References to OpenAPI response objects, by status."""
    by_status: dict[int, list[Kind]] = {}
    for kind in dict.fromkeys(_kinds(route, handler)):
        by_status.setdefault(status_of(kind("")), []).append(kind)
    return {str(status): _response(kinds, components) for status, kinds in sorted(by_status.items())}


def _kinds(route: HTTPRoute, handler: HTTPRouteHandler) -> list[Kind]:
    """What follows from the shape of an operation, and the `failures` that it declares beside."""
    parameters = handler.parsed_fn_signature.parameters
    kinds = [*_OF_ANY]
    if handler.resolve_security():
        kinds += _OF_SECURED
    if "data" in parameters:
        kinds += _OF_BODIES
    if route.path_parameters.keys() - {"user_id"}:
        kinds += _OF_IDS
    if "if_match" in parameters:
        kinds += _OF_CONDITIONS
    return [*kinds, *handler.opt.get("failures", ())]


def _response(kinds: list[Kind], components: Components) -> dict[str, Any]:
    headers: dict[str, Any] = {**REQUEST_ID}
    if errors.Unauthenticated in kinds:
        headers["WWW-Authenticate"] = {"description": "`Bearer` (RFC 6750).", "schema": {"type": "string"}}
    if any(kind("").retry_after is not None for kind in kinds):
        headers["Retry-After"] = {"description": "In seconds.", "schema": {"type": "integer"}}
    response = {
        "description": "\n\n".join(f"`{kind.code}`: {_first_sentence(kind)}" for kind in kinds),
        "headers": headers,
        "content": {MEDIA_TYPE: {"schema": components.schema(Problem)}},
    }
    if len(kinds) > _NAMED:
        return response
    return components.response("Or".join(kind.__name__ for kind in kinds), response)


def _first_sentence(kind: Kind) -> str:
    """Of its docstring: what it means. What follows is for those who raise it."""
    return (getdoc(kind) or "").partition(".")[0] + "."
