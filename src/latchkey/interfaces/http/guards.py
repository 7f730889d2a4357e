"""Checks ahead of each handler below `/api/{user_id}`: authentication, rate limit, user of the path, parameters."""

from typing import Any

from litestar import Request, Response
from litestar.enums import MediaType

from latchkey.application.dispatcher import Dispatcher
from latchkey.domain.errors import WrongUser
from latchkey.domain.ports import Identity
from latchkey.interfaces.auth import owner_of
from latchkey.interfaces.http.litestar_internals import methods_of
from latchkey.interfaces.http.parameters import check_parameters


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

    Raises `Unauthenticated`, `Unavailable`, `Exhausted` beyond the rate limit, and `WrongUser` if the path names
    another user, whether or not that user exists.
    """
    identity: Identity = request.app.state.identity
    dispatcher: Dispatcher = request.app.state.dispatcher
    authorization = ", ".join(request.headers.getall("authorization", []))
    owner = await owner_of(authorization or None, identity)
    await dispatcher.acquire(owner)
    if request.path_params["user_id"] != owner.user_id:
        raise WrongUser("The path names another user than the bearer token.")
    request.scope["user"] = owner


def _allowed_methods(request: Request[Any, Any, Any]) -> Response[None]:
    """Answer OPTIONS with every method of the path (RFC 9110, 9.3.7).

    Litestar's own answer lists only the methods that the path had when its first handler was registered.
    """
    methods = methods_of(request.app, request.scope["path_template"])
    return Response(None, status_code=204, headers={"Allow": ", ".join(methods)}, media_type=MediaType.TEXT)
