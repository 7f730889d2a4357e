"""What operations of the published schema refer to by name."""

import re
from collections.abc import Iterator
from importlib.metadata import version
from inspect import getdoc
from typing import Any

import msgspec
from litestar import Litestar, Response
from litestar.enums import ParamType
from litestar.handlers import HTTPRouteHandler
from litestar.params import ParameterKwarg
from litestar.response import Stream
from litestar.routes import HTTPRoute
from litestar.types import Empty
from litestar.typing import FieldDefinition

from latchkey.domain import errors
from latchkey.domain.errors import Failure
from latchkey.interfaces.errors import Misdirected, status_of
from latchkey.interfaces.http.event_stream import MEDIA_TYPE as EVENT_STREAM
from latchkey.interfaces.http.event_stream import StreamedEvent
from latchkey.interfaces.http.problems import MEDIA_TYPE, InternalError, Problem
from latchkey.interfaces.http.requests import JSON, media_types
from latchkey.interfaces.http.responses import REQUEST_ID

_PAGE = re.compile(rb'\bPage_(\w+)_"')


class Components:
    """Gathers the schemas of types, as msgspec, which reads and writes them, has them; and responses."""

    def __init__(self) -> None:
        self.schemas: dict[str, Any] = {}
        self.responses: dict[str, Any] = {}

    def schema(self, kind: Any) -> dict[str, Any]:
        """The schema of a type, or a reference to it. A page of tasks is called `TaskPage`."""
        made = msgspec.json.schema_components((kind,), ref_template="#/components/schemas/{name}")
        ((schema,), found) = msgspec.json.decode(_PAGE.sub(rb'\1Page"', msgspec.json.encode(made)))
        self.schemas |= found
        return dict(schema)

    def response(self, name: str, response: dict[str, Any]) -> dict[str, Any]:
        """A reference to that response."""
        self.responses[name] = response
        return {"$ref": f"#/components/responses/{name}"}


Kind = type[Failure]

_NAMED = 2
"""A response with more kinds than that has no name that anybody would recognise, and one place where it is used."""

_OF_ANY: tuple[Kind, ...] = (errors.Malformed, Misdirected, errors.Forbidden, InternalError)
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


_CONSTRAINTS = {"ge": "minimum", "le": "maximum", "max_length": "maxLength"}


def describe(route: HTTPRoute, handler: HTTPRouteHandler, components: Components) -> dict[str, Any]:
    """An OpenAPI operation object. The name of the handler is its id, and the docstring its description."""
    summary, _, description = (getdoc(handler.fn) or "").partition("\n\n")
    declared = {
        "operationId": handler.handler_name,
        "tags": handler.resolve_tags(),
        "summary": summary,
        "description": description.replace("\n", " "),
        "security": handler.resolve_security(),
        "parameters": _parameters(route, handler, components),
        "requestBody": _request_body(handler, components),
    }
    responses = {str(handler.status_code): _success(handler, components), **refusals(route, handler, components)}
    return {name: value for name, value in declared.items() if value} | {"responses": responses}


def _parameters(route: HTTPRoute, handler: HTTPRouteHandler, components: Components) -> list[dict[str, Any]]:
    """The user of the path is the same everywhere, and no handler takes one."""
    fields = handler.parsed_fn_signature.parameters.values()
    whose = [{"$ref": "#/components/parameters/user_id"}] if "user_id" in route.path_parameters else []
    return whose + [
        _parameter(field, field.kwarg_definition, components)
        for field in fields
        if isinstance(field.kwarg_definition, ParameterKwarg)
    ]


def _parameter(field: FieldDefinition, declared: ParameterKwarg, components: Components) -> dict[str, Any]:
    schema = components.schema(field.annotation)
    schema = dict(schema.get("anyOf", [schema])[0])  # one that may be left out is not one that may be null
    for name, published in _CONSTRAINTS.items():
        if (limit := getattr(declared, name)) is not None:
            schema[published] = limit
    schema |= declared.schema_extra or {}
    if field.default not in {None, Empty}:
        schema["default"] = field.default
    described: dict[str, Any] = {"name": declared.name or field.name, "in": declared.param_type.value, "schema": schema}
    if declared.description:
        described["description"] = declared.description
    if declared.param_type is ParamType.PATH:
        described["required"] = True
    return described


def _request_body(handler: HTTPRouteHandler, components: Components) -> dict[str, Any] | None:
    declared = handler.parsed_data_field
    if declared is None:
        return None
    schema = components.schema(declared.annotation)
    return {"required": True, "content": {name: {"schema": schema} for name in media_types(declared)}}


def _success(handler: HTTPRouteHandler, components: Components) -> dict[str, Any]:
    headers = {
        header.name: {"description": header.description, "schema": {"type": "string"}}
        for header in sorted(handler.resolve_response_headers(), key=lambda header: header.name)
    }
    response: dict[str, Any] = {"description": "Done.", "headers": {**REQUEST_ID, **headers}}
    if content := dict(_content(handler, components)):
        response["content"] = content
    return response


def _content(handler: HTTPRouteHandler, components: Components) -> Iterator[tuple[str, Any]]:
    """What is answered without being asked for comes first."""
    returned = handler.parsed_fn_signature.return_type
    if not (returned.is_subclass_of(Stream) or returned.is_none_type):
        (answered,) = returned.inner_types if returned.is_subclass_of(Response) else (returned,)
        yield handler.media_type.partition(";")[0] or JSON, {"schema": components.schema(answered.annotation)}
    if handler.opt.get("streams"):
        yield EVENT_STREAM, {"schema": components.schema(StreamedEvent)}


PATH = "/schema/openapi.json"

_METHODS = ("GET", "POST", "PUT", "PATCH", "DELETE")
_USER_ID = {
    "name": "user_id",
    "in": "path",
    "required": True,
    "description": "Whose things these are: the `sub` of the bearer token, and nobody else.",
    "schema": {"type": "string", "pattern": r"^(?!\.{1,2}$)[A-Za-z0-9._~:@|-]{1,128}$"},
}
_REQUEST_ID = {
    "description": "The id under which this is logged: the one that the request came with, or a new one.",
    "schema": {"type": "string"},
}
_BEARER = {
    "type": "http",
    "scheme": "bearer",
    "bearerFormat": "JWT",
    "description": "The user's own token. A context token opens /mcp, and nothing here.",
}


def document(app: Litestar) -> dict[str, Any]:
    """OpenAPI 3.1."""
    components = Components()
    paths: dict[str, dict[str, Any]] = {}
    for route, method, handler in _operations(app):
        paths.setdefault(route.path_format, {})[method.lower()] = describe(route, handler, components)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Latchkey",
            "version": version("latchkey"),
            "description": "Conversations, turns, to-do tasks and context tokens of one person. MCP is at /mcp.",
        },
        "servers": [{"url": "/"}],
        "paths": dict(sorted(paths.items())),
        "components": {
            "schemas": dict(sorted(components.schemas.items())),
            "responses": dict(sorted(components.responses.items())),
            "parameters": {"user_id": _USER_ID},
            "headers": {"X-Request-Id": _REQUEST_ID},
            "securitySchemes": {"bearer": _BEARER},
        },
    }


def _operations(app: Litestar) -> list[tuple[HTTPRoute, str, HTTPRouteHandler]]:
    """Every operation but those that the framework adds by itself, such as OPTIONS; in the same order every time."""
    routes = [route for route in app.routes if isinstance(route, HTTPRoute)]
    found = [(route, str(method), one) for route in routes for method, (one, _) in route.route_handler_map.items()]
    listed = [(route, method, one) for route, method, one in found if one.resolve_include_in_schema()]
    return sorted(listed, key=lambda operation: _METHODS.index(operation[1]))
