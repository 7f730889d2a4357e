"""The published schema of the API: read off its routes, so that it cannot say anything else."""

from importlib.metadata import version
from typing import Any

from litestar import Litestar
from litestar.handlers import HTTPRouteHandler
from litestar.routes import HTTPRoute

from latchkey.interfaces.http.components import Components
from latchkey.interfaces.http.operation import describe

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
