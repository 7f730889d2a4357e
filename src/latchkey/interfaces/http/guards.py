"""The answer to OPTIONS: every method that a path takes (RFC 9110, 9.3.7)."""

from typing import Any

from litestar import Request, Response
from litestar.enums import MediaType
from litestar.routes import HTTPRoute

from latchkey.interfaces.http.parameters import check_parameters
from latchkey.interfaces.http.requests import check_owner


def methods_of(request: Request[Any, Any, Any]) -> Response[None]:
    """Litestar's own answer has those methods alone that a path had when its first handler was registered."""
    path = request.scope["path_template"]
    routes = (route for route in request.app.routes if isinstance(route, HTTPRoute) and route.path_format == path)
    methods = sorted({method for route in routes for method in route.methods})
    return Response(None, status_code=204, headers={"Allow": ", ".join(methods)}, media_type=MediaType.TEXT)


async def before_request(request: Request[Any, Any, Any]) -> Response[None] | None:
    """The answer, where none but this is needed. Raises what the checks do.

    It runs before each request: for each guard, Litestar would copy the handler, every time.
    """
    await check_owner(request)
    if request.method == "OPTIONS":
        return methods_of(request)
    check_parameters(request)
    return None
