"""The tools of one turn: what its token grants, reached over MCP."""

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any, cast

import structlog
from agents import RunContextWrapper
from agents import Tool as AgentTool
from agents.agent import AgentBase
from agents.exceptions import ModelBehaviorError
from agents.mcp import MCPServer, MCPToolMetaContext, MCPUtil
from agents.tool_context import ToolContext
from mcp import Client
from mcp.types import CallToolRequest, CallToolRequestParams, CallToolResult, GetPromptResult, ListPromptsResult, Tool

from latchkey.domain.agent import ToolRequest
from latchkey.domain.errors import ToolsUnavailable
from latchkey.domain.scope import TokenSecret
from latchkey.infrastructure.agents.turn_tasks import Events

Connect = Callable[[TokenSecret], AbstractAsyncContextManager[Client]]
"""Reaches the tools that a token opens. The connection is opened and closed by one task."""

CALL_ID = "latchkey/callId"

_log = structlog.get_logger(__name__)


@asynccontextmanager
async def open_toolbox(connect: Connect, secret: TokenSecret, events: Events | None = None) -> AsyncIterator["Toolbox"]:
    """The tools, whose calls are told to `events` before they are made.

    Raises `ToolsUnavailable` if the tools cannot be reached, the token does not open them, or they are lost.
    """
    is_over = False
    ended: Exception | None = None
    try:
        async with connect(secret) as client:
            toolbox = Toolbox(client, await _listed(client), events)
            try:
                yield toolbox
            except Exception as error:  # noqa: BLE001 - the connection's task group would wrap it in a group
                ended = error
            is_over = True
    except Exception as error:
        if not is_over:
            raise ToolsUnavailable("The agent cannot reach its tools, or its token does not open them.") from error
        _log.warning("tools_closed_badly", error=type(error).__name__)
    if ended is not None:
        raise ended


async def _listed(client: Client) -> list[Tool]:
    tools: list[Tool] = []
    cursor: str | None = None
    while True:
        page = await client.list_tools(cursor=cursor, cache_mode="bypass")
        tools += page.tools
        cursor = page.next_cursor
        if cursor is None:
            return tools


class Toolbox(MCPServer):
    """The Agents SDK's view of the tools. They were listed for this turn, whose token's grants cannot change."""

    def __init__(self, client: Client, tools: list[Tool], events: Events | None) -> None:
        super().__init__(failure_error_function=_explained, tool_meta_resolver=_meta)
        self._client = client
        self._tools = tools
        self._events = events

    @property
    def name(self) -> str:
        return "latchkey"

    def function_tools(self) -> list[AgentTool]:
        """The tools as an agent of the SDK has them; given to it as a server, they would be made anew for each step."""
        return [MCPUtil.to_function_tool(tool, self, convert_schemas_to_strict=False) for tool in self._tools]

    async def list_tools(
        self,
        run_context: RunContextWrapper[Any] | None = None,
        agent: AgentBase | None = None,
    ) -> list[Tool]:
        return self._tools

    async def call_tool(
        self, tool_name: str, arguments: dict[str, Any] | None, meta: dict[str, Any] | None = None
    ) -> CallToolResult:
        """As it was answered: `Client.call_tool` would compile each output schema anew, in every turn."""
        request = ToolRequest.of((meta or {}).get(CALL_ID, ""), tool_name, arguments or {})
        if self._events and request:
            await self._events.send(request)
            await self._events.heard()
        asked = {"name": tool_name, "arguments": arguments, "_meta": meta}
        params = CallToolRequestParams.model_validate(asked)
        return await self._client.session.send_request(CallToolRequest(params=params), CallToolResult)

    async def connect(self) -> None:
        """Nothing to do: `open_toolbox` has connected."""

    async def cleanup(self) -> None:
        """Nothing to do: `open_toolbox` disconnects."""

    async def list_prompts(self) -> ListPromptsResult:
        return ListPromptsResult(prompts=[])

    async def get_prompt(self, name: str, arguments: dict[str, Any] | None = None) -> GetPromptResult:
        raise NotImplementedError("There are no prompts.")


def _meta(call: MCPToolMetaContext) -> dict[str, Any]:
    """A call repeated under the same id has no second effect."""
    return {CALL_ID: cast("ToolContext[Any]", call.run_context).tool_call_id}


def _explained(_: RunContextWrapper[Any], error: Exception) -> str:
    """What the model is told of a call that never left. Any other may have had its effect, so it ends the turn."""
    if isinstance(error, ModelBehaviorError):
        return '{"code":"invalid","detail":"The arguments are not a JSON object: nothing was done."}'
    raise error
