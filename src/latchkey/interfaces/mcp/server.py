"""The MCP server: the tools and resources that the credential of a request grants."""

from importlib.metadata import version
from typing import Any

from mcp.server.caching import CacheableMethod, CacheHint
from mcp.server.lowlevel import Server
from mcp_types import CallToolRequestParams, PaginatedRequestParams, ReadResourceRequestParams

from latchkey.application.dispatcher import Dispatcher
from latchkey.application.external_calls import ExternalCallExecutor
from latchkey.application.tool_calls import ToolCallExecutor
from latchkey.interfaces.mcp.input_requests import ApprovalRequests
from latchkey.interfaces.mcp.principal import HANDLED_METHODS
from latchkey.interfaces.mcp.resources import ResourceHandlers
from latchkey.interfaces.mcp.tools import Tool, ToolHandlers

_PRIVATE: tuple[CacheableMethod, ...] = (
    "tools/list",
    "resources/list",
    "resources/templates/list",
    "resources/read",
)
"""The methods whose results no shared cache may store."""


def create_server(
    dispatcher: Dispatcher,
    executor: ToolCallExecutor,
    external: ExternalCallExecutor,
    tools: dict[str, Tool],
    approval_ttl_s: float,
) -> Server[Any]:
    """Create the server. Its handlers need a `PRINCIPAL`, which the transport sets.

    `executor` runs the tools in a transaction, and `external` those outside of one. A question to the user about a call
    is open for `approval_ttl_s`, and for a day at most.
    """
    server: Server[Any] = Server(
        "latchkey",
        title="Latchkey",
        version=version("latchkey-server"),
        cache_hints=dict.fromkeys(_PRIVATE, CacheHint(scope="private")),
    )
    approvals, resources = ApprovalRequests(dispatcher, approval_ttl_s), ResourceHandlers(dispatcher)
    tool_handlers = ToolHandlers(dispatcher, executor, external, tools, approvals)
    handlers: dict[str, tuple[type[Any], Any]] = {
        "tools/list": (PaginatedRequestParams, tool_handlers.list),
        "tools/call": (CallToolRequestParams, tool_handlers.call),
        "resources/list": (PaginatedRequestParams, resources.list),
        "resources/templates/list": (PaginatedRequestParams, resources.list_templates),
        "resources/read": (ReadResourceRequestParams, resources.read),
    }
    for method in HANDLED_METHODS:
        server.add_request_handler(method, *handlers[method])
    return server
