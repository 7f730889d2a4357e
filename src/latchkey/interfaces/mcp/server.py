"""The MCP server: it shows a caller the tools that their credential opens, and performs their calls."""

from importlib.metadata import version
from typing import Any

import msgspec
from mcp import MCPError
from mcp.server.caching import CacheableMethod, CacheHint
from mcp.server.context import CallNext, HandlerResult
from mcp.server.lowlevel import Server
from mcp_types import (
    INVALID_PARAMS,
    SERVER_INFO_META_KEY,
    CallToolRequestParams,
    PaginatedRequestParams,
    ReadResourceRequestParams,
)
from mcp_types.methods import validate_client_request
from mcp_types.version import MODERN_PROTOCOL_VERSIONS
from msgspec import Raw

from latchkey.application.dispatcher import Dispatcher
from latchkey.application.tool_calls import ToolCallExecutor, ToolInvocation, ToolOutcome
from latchkey.domain.errors import Forbidden, Invalid
from latchkey.domain.tool_call import encode_arguments
from latchkey.interfaces.mcp.error_boundary import error_boundary
from latchkey.interfaces.mcp.principal import PRINCIPAL, Principal
from latchkey.interfaces.mcp.resources import ResourceHandlers
from latchkey.interfaces.mcp.results import JSON_BODY, Context, Result, call_id_in, complete
from latchkey.interfaces.mcp.tool_schema import ToolBinding
from latchkey.interfaces.mcp.tools import TOOLS, Text

_PERSONAL: tuple[CacheableMethod, ...] = (
    "tools/list",
    "resources/list",
    "resources/templates/list",
    "resources/read",
)


def create_server(dispatcher: Dispatcher, executor: ToolCallExecutor) -> Server[Any]:
    """The server, for any transport that says who its callers are."""
    server: Server[Any] = Server(
        "latchkey",
        title="Latchkey",
        version=version("latchkey"),
        cache_hints=dict.fromkeys(_PERSONAL, CacheHint(scope="private")),
    )
    tool_handlers = ToolHandlers(dispatcher, executor, server.server_info_stamp)
    # In place of the SDK's own, which makes spans of OpenTelemetry's that nobody collects: 15 us of a call.
    server.middleware = [tool_handlers.attend]
    server.add_request_handler("tools/list", PaginatedRequestParams, tool_handlers.on_list)
    server.add_request_handler("tools/call", CallToolRequestParams, tool_handlers.on_call)
    resource_handlers = ResourceHandlers(dispatcher)
    server.add_request_handler("resources/list", PaginatedRequestParams, resource_handlers.on_list)
    server.add_request_handler("resources/templates/list", PaginatedRequestParams, resource_handlers.on_list_templates)
    server.add_request_handler("resources/read", ReadResourceRequestParams, resource_handlers.on_read)
    return server


class ToolHandlers:
    """Where callers ask for tools. To them, a tool that their credential does not open is not there."""

    def __init__(self, dispatcher: Dispatcher, executor: ToolCallExecutor, server_info: Result) -> None:
        self._dispatcher = dispatcher
        self._tool_call_executor = executor
        self._mark = {"_meta": {SERVER_INFO_META_KEY: server_info}, "resultType": "complete"}

    async def attend(self, ctx: Context, call_next: CallNext) -> HandlerResult:
        """Perform tool calls by a shorter way: what is asked is checked as anything else, what is answered is not.

        The SDK's kernel would look through an answer twice, and stamp it: 12 us, of 50 tasks 46. It also keeps
        notifications from being calls, and calls from coming before a session has begun, which over HTTP they cannot.
        """
        if ctx.method != "tools/call" or ctx.request is not JSON_BODY:
            return await call_next(ctx)
        validate_client_request(ctx.method, ctx.protocol_version, ctx.params)
        outcome, text = await self._outcome(CallToolRequestParams.model_validate(ctx.params, by_name=False))
        answer = _answer(outcome, text, as_json=True)
        return self._mark | answer if ctx.protocol_version in MODERN_PROTOCOL_VERSIONS else answer

    async def on_list(self, _: Context, __: PaginatedRequestParams) -> Result:
        principal = PRINCIPAL.get()
        return await error_boundary(principal, self._list(principal))

    async def on_call(self, _: Context, call: CallToolRequestParams) -> Result:
        outcome, text = await self._outcome(call)
        return complete(**_answer(outcome, text, as_json=False))

    async def _outcome(self, call: CallToolRequestParams) -> tuple[ToolOutcome, Text | None]:
        principal = PRINCIPAL.get()
        return await error_boundary(principal, self._call(principal, call))

    async def _list(self, principal: Principal) -> Result:
        scope = await principal.scope(self._dispatcher)
        return complete(tools=[tool.listing for tool in TOOLS.values() if tool.binding.is_allowed(scope)])

    async def _call(self, principal: Principal, call: CallToolRequestParams) -> tuple[ToolOutcome, Text | None]:
        tool, call_id = TOOLS.get(call.name), call_id_in(call.meta)
        if tool is None:
            await principal.scope(self._dispatcher)
            raise _unknown(call.name)
        try:
            outcome = await self._perform(tool.binding, principal, call.arguments or {}, call_id)
        except Forbidden:
            principal.vouched = True
            raise _unknown(call.name) from None
        principal.vouched = True
        return outcome, tool.text

    async def _perform(
        self, tool: ToolBinding, principal: Principal, arguments: Result, call_id: str | None
    ) -> ToolOutcome:
        invocation = ToolInvocation(tool.name, encode_arguments(arguments), call_id)
        try:
            bound = tool.bind(arguments)
        except Invalid as failure:
            return await self._tool_call_executor.refuse(principal.credential, invocation, tool.use_case, failure)
        return await self._tool_call_executor.execute(principal.credential, invocation, tool.use_case, *bound)


def _answer(outcome: ToolOutcome, text: Text | None, *, as_json: bool) -> Result:
    """An error has no structured content: that is promised to be what the output schema says."""
    said = outcome.json.decode()
    if outcome.is_error:
        return {"content": [{"type": "text", "text": said}], "isError": True}
    if text is not None:
        said = text(msgspec.to_builtins(outcome.content))
    structured = Raw(outcome.json) if as_json else msgspec.to_builtins(outcome.content)
    return {"content": [{"type": "text", "text": said}], "structuredContent": structured, "isError": False}


def _unknown(name: str) -> MCPError:
    """The same for a tool that is not there and for one that the credential does not open."""
    return MCPError(INVALID_PARAMS, f"Unknown tool: {name}")
