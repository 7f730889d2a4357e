"""The HTTP application: routes, the strict edge, and where /mcp is mounted."""

from collections.abc import Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager
from importlib.metadata import version
from typing import Any

from litestar import Litestar, Router, asgi
from litestar.datastructures import State
from litestar.openapi import OpenAPIConfig
from litestar.openapi.plugins import JsonRenderPlugin
from litestar.types import Receive, Scope, Send
from msgspec import Struct

from latchkey.application.application import Application
from latchkey.application.running import TurnRunner
from latchkey.domain.ports import Identity
from latchkey.interfaces.http.body import MAX_BYTES, StrictBody
from latchkey.interfaces.http.chat import chat
from latchkey.interfaces.http.context_tokens import ContextTokenController
from latchkey.interfaces.http.conversations import ConversationController
from latchkey.interfaces.http.health import HealthController, Probe
from latchkey.interfaces.http.problems import EXCEPTION_HANDLERS
from latchkey.interfaces.http.request import ApiRequest, require_owner
from latchkey.interfaces.http.tasks import TaskController
from latchkey.interfaces.http.turns import TurnController

Lifespan = Callable[[Litestar], AbstractAsyncContextManager[None]]


class Parts(Struct, frozen=True):
    """What the application serves; a lifespan may fill in the rest of the state."""

    application: Application
    runner: TurnRunner
    identity: Identity
    probe: Probe
    mcp: Callable[[Any, Any, Any], Awaitable[None]]


def create_app(parts: Parts, lifespan: Sequence[Lifespan] = ()) -> Litestar:
    """The Litestar application, still without its outermost edge."""

    @asgi("/mcp", is_mount=False, copy_scope=True)
    async def mcp(scope: Scope, receive: Receive, send: Send) -> None:
        await parts.mcp(scope, receive, send)

    api = Router(
        "/api/{user_id:str}",
        route_handlers=[chat, ConversationController, TurnController, TaskController, ContextTokenController],
        guards=[require_owner],
        request_class=ApiRequest,
        dto=StrictBody,
        return_dto=None,
    )
    return Litestar(
        route_handlers=[api, HealthController, mcp],
        state=State({"application": parts.application, "runner": parts.runner, "identity": parts.identity, "probe": parts.probe}),
        exception_handlers=EXCEPTION_HANDLERS,
        lifespan=list(lifespan),
        openapi_config=OpenAPIConfig(
            title="Latchkey", version=version("latchkey"), path="/schema", render_plugins=[JsonRenderPlugin()]
        ),
        request_max_body_size=MAX_BYTES,
        logging_config=None,
    )
