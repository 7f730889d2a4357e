"""The tools of one turn: what its token grants, reached over MCP."""

import json
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any

import structlog
from mcp import Client
from mcp.types import (
    CallToolRequest,
    CallToolRequestParams,
    CallToolResult,
    ListToolsRequest,
    ListToolsResult,
    PaginatedRequestParams,
    TextContent,
    Tool,
)

from latchkey.domain.agent import AgentRun, ToolRequest, ToolReturned
from latchkey.domain.credentials import Scope, TokenSecret
from latchkey.domain.errors import ToolsUnavailable
from latchkey.infrastructure.agents.turn_tasks import AgentEventStream

Connect = Callable[[TokenSecret, Scope], AbstractAsyncContextManager[Client]]
"""Reaches the tools that a token opens, whose scope is known. The connection is opened and closed by one task."""

CALL_ID = "latchkey/callId"

_NO_OBJECT = '{"code":"invalid","detail":"The arguments are not a JSON object: nothing was done."}'

_log = structlog.get_logger(__name__)


@asynccontextmanager
async def open_toolset(
    connect: Connect, agent_run: AgentRun, events: AgentEventStream | None = None
) -> AsyncIterator["Toolset"]:
    """The tools, whose calls are told to `events` before they are made and when they have answered.

    Raises `ToolsUnavailable` if the tools cannot be reached, the token does not open them, or they are lost.
    """
    is_over = False
    ended: Exception | None = None
    try:
        async with connect(agent_run.secret, agent_run.scope) as client:
            toolset = Toolset(client, await _listed(client), events)
            try:
                yield toolset
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
    """As they are listed: what `Client.list_tools` does beside, to call them later, takes 0.1 ms and is not used."""
    tools: list[Tool] = []
    cursor: str | None = None
    while True:
        request = ListToolsRequest(params=PaginatedRequestParams(cursor=cursor))
        page = await client.session.send_request(request, ListToolsResult)
        tools += page.tools
        cursor = page.next_cursor
        if cursor is None:
            return tools


class Toolset:
    """The tools, as they were listed for this turn, whose token's grants cannot change."""

    def __init__(self, client: Client, tools: list[Tool], events: AgentEventStream | None) -> None:
        self.tools = tools
        self._client = client
        self._events = events

    async def call(self, call_id: str, name: str, arguments: str) -> str:
        """The text that the tool answers with, or that nothing was done. A call repeated has no second effect.

        Raises whatever goes wrong with a call that may have had its effect, which ends the turn.
        """
        given = _object(arguments)
        if given is None:
            return _NO_OBJECT
        request = ToolRequest.create(call_id, name, given)
        if self._events and request:
            await self._events.send(request)
            await self._events.wait_consumed()
        result = await self._answered(call_id, name, given)
        if self._events and request:
            await self._events.send(ToolReturned(call_id))
        return "\n".join(part.text for part in result.content if isinstance(part, TextContent))

    async def _answered(self, call_id: str, name: str, arguments: dict[str, Any]) -> CallToolResult:
        """As it was: `Client.call_tool` would compile each output schema anew, in every turn."""
        asked = {"name": name, "arguments": arguments, "_meta": {CALL_ID: call_id}}
        params = CallToolRequestParams.model_validate(asked)
        return await self._client.session.send_request(CallToolRequest(params=params), CallToolResult)


def _object(arguments: str) -> dict[str, Any] | None:
    try:
        given = json.loads(arguments or "{}")
    except ValueError:
        return None
    return given if isinstance(given, dict) else None
