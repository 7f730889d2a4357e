"""Reads Litestar's routes and handlers beyond its documented interface.

Litestar may rename these attributes in any release. Only this module uses them, and
`tests/unit/http/test_litestar_internals.py` fails with their names when one of them is gone.
"""

from collections.abc import Iterator
from typing import Any

from litestar import Litestar
from litestar.enums import ParamType
from litestar.handlers import BaseRouteHandler, HTTPRouteHandler
from litestar.params import BodyKwarg, ParameterKwarg
from litestar.response import Response, Stream
from litestar.routes import HTTPRoute
from litestar.types import Empty
from msgspec import Struct


class Parameter(Struct, frozen=True, eq=False):
    """A declared path, query or header parameter. `default` is None for a parameter without one."""

    name: str
    location: ParamType
    annotation: Any
    default: Any
    declared: ParameterKwarg


class Body(Struct, frozen=True, eq=False):
    """The declared request body of a handler: its type and media type."""

    annotation: Any
    media_type: str | None


class Operation(Struct, frozen=True, eq=False):
    """A handler at a path, for one HTTP method."""

    path: str
    path_parameters: frozenset[str]
    method: str
    handler: HTTPRouteHandler


def operations_of(app: Litestar) -> Iterator[Operation]:
    """Yield every published operation: no handler that Litestar added by itself, such as those for OPTIONS."""
    for route in _http_routes(app):
        for method, (handler, _) in route.route_handler_map.items():
            if handler.resolve_include_in_schema():
                yield Operation(route.path_format, frozenset(route.path_parameters), str(method), handler)


def methods_of(app: Litestar, path_template: str) -> list[str]:
    """Return the HTTP methods of a path, sorted."""
    routes = [route for route in _http_routes(app) if route.path_format == path_template]
    return sorted({str(method) for route in routes for method in route.methods})


def parameters_of(handler: BaseRouteHandler) -> list[Parameter]:
    """Return the declared parameters of a handler."""
    return [
        Parameter(
            name=field.kwarg_definition.name or field.name,
            location=field.kwarg_definition.param_type,
            annotation=field.annotation,
            default=None if field.default is Empty else field.default,
            declared=field.kwarg_definition,
        )
        for field in handler.parsed_fn_signature.parameters.values()
        if isinstance(field.kwarg_definition, ParameterKwarg) and not field.is_di_field
    ]


def body_of(handler: BaseRouteHandler) -> Body | None:
    """Return the declared request body of a handler, or None if it takes none."""
    field = handler.parsed_fn_signature.parameters.get("data")
    if field is None:
        return None
    kwarg = field.kwarg_definition
    return Body(field.annotation, str(kwarg.media_type) if isinstance(kwarg, BodyKwarg) else None)


def response_type_of(handler: HTTPRouteHandler) -> Any:
    """Return the type of the response body of a handler: None for an empty body and for a stream."""
    returned = handler.parsed_fn_signature.return_type
    if returned.is_subclass_of(Stream) or returned.is_none_type:
        return None
    return returned.inner_types[0].annotation if returned.is_subclass_of(Response) else returned.annotation


def tags_of(handler: HTTPRouteHandler) -> list[str]:
    """Return the OpenAPI tags of a handler and its controller."""
    return list(handler.resolve_tags())


def security_of(handler: HTTPRouteHandler) -> list[dict[str, list[str]]]:
    """Return the OpenAPI security requirements of a handler and its router."""
    return list(handler.resolve_security() or [])


def response_headers_of(handler: HTTPRouteHandler) -> dict[str, str | None]:
    """Return the descriptions of a handler's response headers by name, sorted."""
    headers = sorted(handler.resolve_response_headers(), key=lambda header: header.name)
    return {header.name: header.description for header in headers}


def _http_routes(app: Litestar) -> Iterator[HTTPRoute]:
    return (route for route in app.routes if isinstance(route, HTTPRoute))
