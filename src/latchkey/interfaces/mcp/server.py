"""The MCP server: it shows a caller the tools that their credential opens, and performs their calls."""

from collections.abc import Callable
from importlib.metadata import version
from typing import Any

import msgspec
from mcp import MCPError
from mcp.server.caching import CacheableMethod, CacheHint
from mcp.server.lowlevel import Server
from mcp_types import INVALID_PARAMS, CallToolRequestParams, PaginatedRequestParams, ReadResourceRequestParams

from latchkey.application.application import Application
from latchkey.application.ledger import Invocation, Ledger, Outcome
from latchkey.domain.errors import Forbidden, Invalid
from latchkey.domain.tool_call import recorded
from latchkey.interfaces.mcp.answer import Answer, Context, complete
from latchkey.interfaces.mcp.call_id import call_id_in
from latchkey.interfaces.mcp.caller import CALLER, Caller
from latchkey.interfaces.mcp.containment import contained
from latchkey.interfaces.mcp.projection import Projection
from latchkey.interfaces.mcp.resources import ResourceShelf
from latchkey.interfaces.mcp.tools import TOOLS

_PERSONAL: tuple[CacheableMethod, ...] = (
    "tools/list",
    "resources/list",
    "resources/templates/list",
    "resources/read",
)


def create_server(application: Application, ledger: Ledger) -> Server[Any]:
    """The server, for any transport that says who its callers are."""
    server: Server[Any] = Server(
        "latchkey",
        title="Latchkey",
        version=version("latchkey"),
        cache_hints=dict.fromkeys(_PERSONAL, CacheHint(scope="private")),
        # No tool takes arguments from HTTP headers. Without this, every call would list the tools to find that out.
        get_tool_input_schema=lambda _: None,
    )
    desk = ToolDesk(application, ledger)
    server.add_request_handler("tools/list", PaginatedRequestParams, desk.on_list)
    server.add_request_handler("tools/call", CallToolRequestParams, desk.on_call)
    shelf = ResourceShelf(application)
    server.add_request_handler("resources/list", PaginatedRequestParams, shelf.on_list)
    server.add_request_handler("resources/templates/list", PaginatedRequestParams, shelf.on_list_templates)
    server.add_request_handler("resources/read", ReadResourceRequestParams, shelf.on_read)
    return server


class ToolDesk:
    """Where callers ask for tools. To them, a tool that their credential does not open is not there."""

    def __init__(self, application: Application, ledger: Ledger) -> None:
        self._application = application
        self._ledger = ledger

    async def on_list(self, _: Context, __: PaginatedRequestParams) -> Answer:
        caller = CALLER.get()
        return await contained(caller, self._list(caller))

    async def on_call(self, _: Context, call: CallToolRequestParams) -> Answer:
        caller = CALLER.get()
        return await contained(caller, self._call(caller, call.name, call.arguments or {}, call_id_in(call.meta)))

    async def _list(self, caller: Caller) -> Answer:
        scope = await caller.scope(self._application)
        return complete(tools=[tool.listing for tool in TOOLS.values() if tool.projection.opens_to(scope)])

    async def _call(self, caller: Caller, name: str, arguments: Answer, call_id: str | None) -> Answer:
        tool = TOOLS.get(name)
        if tool is None:
            await caller.scope(self._application)
            raise _unknown(name)
        try:
            outcome = await self._perform(tool.projection, caller, arguments, call_id)
        except Forbidden:
            caller.vouched = True
            raise _unknown(name) from None
        caller.vouched = True
        return _answer(outcome, tool.text)

    async def _perform(self, tool: Projection, caller: Caller, arguments: Answer, call_id: str | None) -> Outcome:
        invocation = Invocation(tool.name, recorded(arguments), call_id)
        try:
            bound = tool.bind(arguments)
        except Invalid as failure:
            return await self._ledger.refuse(caller.credential, invocation, tool.use_case, failure)
        return await self._ledger.perform(caller.credential, invocation, tool.use_case, *bound)


def _answer(outcome: Outcome, text: Callable[[Answer], str] | None) -> Answer:
    """An error has no structured content: that is promised to be what the output schema says."""
    if outcome.is_error:
        return complete(content=[{"type": "text", "text": outcome.json.decode()}], isError=True)
    structured = msgspec.to_builtins(outcome.content)
    said = outcome.json.decode() if text is None else text(structured)
    return complete(content=[{"type": "text", "text": said}], structuredContent=structured, isError=False)


def _unknown(name: str) -> MCPError:
    """The same for a tool that is not there and for one that the credential does not open."""
    return MCPError(INVALID_PARAMS, f"Unknown tool: {name}")
