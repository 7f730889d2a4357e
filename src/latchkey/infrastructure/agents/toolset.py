"""The tools of a turn, reached over MCP, and how recorded calls are shown to a model."""

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

from latchkey.domain.agent import AgentRun, TurnWaiting
from latchkey.domain.credentials import Scope, TokenSecret
from latchkey.domain.errors import ToolsUnavailable
from latchkey.domain.tool_call import ToolCall, ToolRequest, ToolReturned
from latchkey.infrastructure.agents.turn_tasks import AgentEventStream, storable

_NO_RESULT = "no result recorded"


MAX_RESULT_CHARS = 40_000
MAX_TURN_CHARS = 160_000
"""The characters of one result, and of all results of a turn, that a model is given. Each request repeats them."""

_MIN_RESULT_CHARS = 500
"""A model learns at least this much of each result, whatever the results before it have used."""


def result_text(call: ToolCall) -> str:
    """The recorded result as JSON, or a note if the turn ended before the call had a result. Long results are cut."""
    return _shortened(bytes(call.result).decode(), MAX_RESULT_CHARS) if call.has_result else _NO_RESULT


def _shortened(text: str, max_chars: int) -> str:
    """The begin of a text that is too long, and a note for the model. Listings begin with what matters most."""
    if len(text) <= max_chars:
        return text
    note = "Ask for less: use a smaller limit, a filter, or the id of one item."
    return f"{text[:max_chars]}\n[The last {len(text) - max_chars} characters of this result are left out. {note}]"


Connect = Callable[[TokenSecret, Scope], AbstractAsyncContextManager[Client]]
"""Connects to the MCP server with a context token of known scope. One task must open and close the connection."""

CALL_ID = "latchkey/callId"

IS_WAITING = "latchkey/waiting"
"""In the `_meta` of a result: the call is stored, and waits for the user."""

_UNREADABLE = "unreadable_arguments"
"""The argument under which unreadable arguments are recorded. No tool has it, so the call has no effect."""

_MAX_RECORDED_CHARS = 2000

_INVALID_ARGUMENTS = '{"code":"invalid","detail":"The arguments are not a JSON object: nothing was done."}'

_log = structlog.get_logger(__name__)


@asynccontextmanager
async def open_toolset(
    connect: Connect, agent_run: AgentRun, events: AgentEventStream | None = None
) -> AsyncIterator["Toolset"]:
    """Connect to the tools. Each call is published to `events` before it is made and after it has returned.

    Raises `ToolsUnavailable` if the MCP server cannot be reached, refuses the token, or closes the connection.
    """
    is_done = False
    turn_error: Exception | None = None
    try:
        async with connect(agent_run.secret, agent_run.scope) as client:
            toolset = Toolset(client, await _list_tools(client), events)
            try:
                yield toolset
            except Exception as error:  # noqa: BLE001 - the connection's task group would wrap it in a group
                turn_error = error
            is_done = True
    except Exception as error:
        if not is_done:
            raise ToolsUnavailable("The agent cannot reach its tools, or its context token was refused.") from error
        _log.warning("toolset_close_failed", error=type(error).__name__)
    if turn_error is not None:
        raise turn_error


async def _list_tools(client: Client) -> list[Tool]:
    """All pages of the listing.

    Sends the request itself because `Client.list_tools` also compiles each output schema, which is not used here.
    """
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
    """The tools as listed for this turn. The grants of a token cannot change while the turn runs."""

    def __init__(self, client: Client, tools: list[Tool], events: AgentEventStream | None) -> None:
        self.tools = tools
        self._client = client
        self._events = events
        self._chars_left = MAX_TURN_CHARS
        self._is_waiting = False

    def check_not_waiting(self) -> None:
        """Raises `TurnWaiting` if a call waits for the user: then the model is not asked again."""
        if self._is_waiting:
            raise TurnWaiting

    async def call(self, call_id: str, name: str, arguments: str) -> str:
        """Call a tool and return the text of its result. A repeated `call_id` has no second effect.

        A long result is cut, to bound what each request sends to the model; the text says so.

        Arguments that are not a JSON object are recorded as a failed call, and the result says so. Raises any other
        error: the call may have had an effect, so the turn must end.
        """
        parsed = parse_object(arguments)
        if parsed is None:
            await self._call(call_id, name, {_UNREADABLE: storable(arguments[:_MAX_RECORDED_CHARS])})
            return _INVALID_ARGUMENTS
        return await self._call(call_id, name, parsed)

    async def _call(self, call_id: str, name: str, arguments: dict[str, Any]) -> str:
        request = ToolRequest.create(call_id, name, arguments)
        if self._events and request:
            await self._events.send(request)
            await self._events.wait_consumed()
        result = await self._send(call_id, name, arguments)
        self._is_waiting = self._is_waiting or bool(result.meta and result.meta.get(IS_WAITING))
        if self._events and request:
            await self._events.send(ToolReturned(call_id))
        text = "\n".join(part.text for part in result.content if isinstance(part, TextContent))
        text = _shortened(text, min(MAX_RESULT_CHARS, max(self._chars_left, _MIN_RESULT_CHARS)))
        self._chars_left -= len(text)
        return text

    async def _send(self, call_id: str, name: str, arguments: dict[str, Any]) -> CallToolResult:
        """Sends the request itself because `Client.call_tool` would compile each output schema in every turn."""
        params = CallToolRequestParams.model_validate(
            {"name": name, "arguments": arguments, "_meta": {CALL_ID: call_id}}
        )
        return await self._client.session.send_request(CallToolRequest(params=params), CallToolResult)


def parse_object(arguments: str) -> dict[str, Any] | None:
    """Parse the arguments of a call; None unless they are a JSON object. Blank arguments are an empty object."""
    try:
        value = json.loads(arguments.strip() or "{}", parse_constant=_refuse_constant)
    except ValueError:
        return None
    return value if isinstance(value, dict) else None


def _refuse_constant(name: str) -> float:
    """Refuse NaN and infinity, which Python reads and JSON does not know."""
    raise ValueError(name)
