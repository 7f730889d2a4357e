"""The HTTP application: routes, the strict edge, and where /mcp is mounted."""

from collections.abc import Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Any

import msgspec
from litestar import Litestar, Request, Response, Router, asgi, get
from litestar.datastructures import State
from litestar.middleware import AbstractMiddleware
from litestar.types import ASGIApp, Receive, Scope, Send
from msgspec import Struct

from latchkey.application.dispatcher import Dispatcher
from latchkey.application.turns.runner import TurnRunner
from latchkey.application.turns.subscription import TurnSubscriptions
from latchkey.domain.ports import Identity
from latchkey.interfaces.http import openapi
from latchkey.interfaces.http.guards import before_request
from latchkey.interfaces.http.middleware.cors import cors
from latchkey.interfaces.http.problems import EXCEPTION_HANDLERS
from latchkey.interfaces.http.requests import ApiRequest
from latchkey.interfaces.http.responses import JsonResponse
from latchkey.interfaces.http.routes.artifacts import ArtifactController
from latchkey.interfaces.http.routes.chat import chat
from latchkey.interfaces.http.routes.context_tokens import ContextTokenController
from latchkey.interfaces.http.routes.conversations import ConversationController
from latchkey.interfaces.http.routes.health import HealthController, Probe
from latchkey.interfaces.http.routes.resource_metadata import ResourceMetadata, get_resource_metadata
from latchkey.interfaces.http.routes.tasks import TaskController
from latchkey.interfaces.http.routes.turns import TurnController

CONTROLLERS = (ConversationController, TurnController, TaskController, ArtifactController, ContextTokenController)

Lifespan = Callable[[Litestar], AbstractAsyncContextManager[None]]


class Parts(Struct, frozen=True):
    """What the application serves. There is resource metadata where somebody else issues the tokens."""

    dispatcher: Dispatcher
    runner: TurnRunner
    subscriptions: TurnSubscriptions
    identity: Identity
    probe: Probe
    mcp: Callable[[Any, Any, Any], Awaitable[None]]
    resource_metadata: ResourceMetadata | None = None
    origins: Sequence[str] = ()


def create_app(parts: Parts, lifespan: Sequence[Lifespan] = ()) -> Litestar:
    """The Litestar application, still without its outermost edge."""

    @asgi("/mcp", is_mount=False, copy_scope=True)
    async def mcp(scope: Scope, receive: Receive, send: Send) -> None:
        await parts.mcp(scope, receive, send)

    api = Router(
        "/api/{user_id:str}",
        route_handlers=[chat, *CONTROLLERS],
        before_request=before_request,
        security=[{"bearer": []}],
        request_class=ApiRequest,
        response_class=JsonResponse,
    )
    metadata = [get_resource_metadata] if parts.resource_metadata else []
    app = Litestar(
        route_handlers=[api, HealthController, get_schema, mcp, *metadata],
        state=State({name: getattr(parts, name) for name in parts.__struct_fields__}),
        exception_handlers=EXCEPTION_HANDLERS,
        lifespan=list(lifespan),
        openapi_config=None,
        cors_config=cors(parts.origins),
        logging_config=None,
    )
    app.asgi_handler = _straight(app.asgi_handler, parts.mcp)
    app.state.schema = msgspec.json.encode(openapi.document(app))
    return app


def _straight(full: ASGIApp, mcp: ASGIApp) -> ASGIApp:
    """A shorter way for what no page sends: past CORS, which is for pages alone (5 us), and to `/mcp` (14 us)."""
    if not isinstance(full, AbstractMiddleware):
        raise TypeError(full)  # with `cors_config`, CORS is the outermost
    past_cors = full.app

    async def handle(scope: Scope, receive: Receive, send: Send) -> None:
        if any(name == b"origin" for name, _ in scope["headers"]):
            await full(scope, receive, send)
        elif scope["path"] == "/mcp":
            await mcp(scope, receive, send)
        else:
            await past_cors(scope, receive, send)

    return handle


@get(openapi.PATH, tags=["schema"])
async def get_schema(request: Request[None, None, State]) -> Response[dict[str, Any]]:
    """Show what you are reading: the schema of this API (OpenAPI 3.1)."""
    return Response(request.app.state.schema, media_type="application/json")
