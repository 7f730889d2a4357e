"""The Litestar application: routes, dependencies, CORS, exception handlers, and `/mcp`."""

from collections.abc import Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Any, TypeVar

from litestar import Controller, Litestar, Router, asgi
from litestar.datastructures import State
from litestar.di import Provide
from litestar.types import Receive, Scope, Send
from msgspec import Struct

from latchkey.application.dispatcher import Dispatcher
from latchkey.application.turns.runner import TurnRunner
from latchkey.application.turns.subscription import TurnSubscriptions
from latchkey.domain.credentials import RegisteredGrants
from latchkey.domain.ports import Identity
from latchkey.interfaces.http import openapi
from latchkey.interfaces.http.console import Console, get_console_file, get_index
from latchkey.interfaces.http.guards import before_request
from latchkey.interfaces.http.middleware.cors import cors
from latchkey.interfaces.http.problems import EXCEPTION_HANDLERS
from latchkey.interfaces.http.requests import MAX_BODY_BYTES, ApiRequest
from latchkey.interfaces.http.routes.assistants import list_assistants
from latchkey.interfaces.http.routes.chat import chat
from latchkey.interfaces.http.routes.documents import PublishedDocuments, get_reference, get_schema
from latchkey.interfaces.http.routes.health import HealthController, ReadinessCheck
from latchkey.interfaces.http.routes.resource_metadata import ResourceMetadata, get_resource_metadata

Lifespan = Callable[[Litestar], AbstractAsyncContextManager[None]]
T = TypeVar("T")


class HttpServices(Struct, frozen=True):
    """What the HTTP application serves.

    - `check_ready`: raises `Unavailable` while the service cannot serve.
    - `mcp`: the ASGI application at `/mcp`.
    - `resource_metadata`: published if an identity provider issues the tokens.
    - `console`: the page for browsers, if it is on.
    - `origins`: the origins whose pages may call the API.
    - `controllers`: served below `/api/{user_id}`.
    - `grants`: the grants that a context token can carry.
    - `agents`: the names of the agents that may run turns, for the published schema.
    """

    dispatcher: Dispatcher
    runner: TurnRunner
    subscriptions: TurnSubscriptions
    identity: Identity
    check_ready: ReadinessCheck
    mcp: Callable[[Any, Any, Any], Awaitable[None]]
    resource_metadata: ResourceMetadata | None = None
    console: Console | None = None
    origins: Sequence[str] = ()
    grants: RegisteredGrants = RegisteredGrants()
    agents: Sequence[str] = ()
    controllers: Sequence[type[Controller]] = ()


def create_app(services: HttpServices, lifespan: Sequence[Lifespan] = ()) -> Litestar:
    """Return the Litestar application, to be wrapped in `SecurityMiddleware`."""

    @asgi("/mcp", is_mount=False, copy_scope=False)
    async def mcp(scope: Scope, receive: Receive, send: Send) -> None:
        await services.mcp(scope, receive, send)

    api = Router(
        "/api/{user_id:str}",
        route_handlers=[chat, list_assistants, *services.controllers],
        before_request=before_request,
        security=[{"bearer": []}],
        request_class=ApiRequest,
        request_max_body_size=MAX_BODY_BYTES,
    )
    optional = [
        *([get_resource_metadata] if services.resource_metadata else []),
        *([get_console_file] if services.console else []),
    ]
    app = Litestar(
        route_handlers=[api, HealthController, get_index, get_reference, get_schema, mcp, *optional],
        dependencies={
            "dispatcher": _provide(services.dispatcher),
            "grants": _provide(services.grants),
            "runner": _provide(services.runner),
            "subscriptions": _provide(services.subscriptions),
            "check_ready": _provide(services.check_ready),
            "resource_metadata": _provide(services.resource_metadata),
            "console": _provide(services.console),
        },
        state=State({"dispatcher": services.dispatcher, "identity": services.identity}),
        exception_handlers=EXCEPTION_HANDLERS,
        lifespan=list(lifespan),
        openapi_config=None,
        cors_config=cors(services.origins),
        logging_config=None,
    )
    app.state.documents = PublishedDocuments(openapi.document(app, services.grants, services.agents))
    return app


def _provide(value: T) -> Provide:
    """Return a dependency that is the same for all requests."""

    def provide() -> T:
        return value

    return Provide(provide, use_cache=True, sync_to_thread=False)
