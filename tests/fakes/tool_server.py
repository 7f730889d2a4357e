"""An MCP server with three tools, which records its calls and the tokens of its clients."""

import json
from asyncio import Event
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import anyio
import anyio.lowlevel
from mcp import Client
from mcp.server.lowlevel import Server
from mcp.types import (
    CallToolRequestParams,
    CallToolResult,
    ListToolsResult,
    PaginatedRequestParams,
    TextContent,
    Tool,
)

from latchkey.domain.credentials import Scope, TokenSecret
from latchkey.domain.errors import Unauthenticated

TOOLS = (
    Tool(
        name="note",
        description="Write a note down.",
        input_schema={
            "type": "object",
            "properties": {"text": {"type": "string", "maxLength": 40}, "due": {"type": ["string", "null"]}},
            "required": ["text"],
            "additionalProperties": False,
        },
    ),
    Tool(name="fail", description="Refuse, and say why.", input_schema={"type": "object", "properties": {}}),
    Tool(name="crash", description="Break the server.", input_schema={"type": "object", "properties": {}}),
)
ASK = Tool(name="ask", description="Do what the user must approve.", input_schema={"type": "object", "properties": {}})


@dataclass
class ReceivedCall:
    """A call as received."""

    name: str
    arguments: dict[str, Any]
    meta: dict[str, Any]


@dataclass
class ToolServer:
    """Answers `note` with its text, `fail` with a tool error, and `crash` with a protocol error.

    A call of `ask`, which is not among `TOOLS`, waits for the user.
    """

    tools: Sequence[Tool] = TOOLS
    page_size: int = 2
    refuses: bool = False
    calls: list[ReceivedCall] = field(default_factory=list)
    tokens: list[TokenSecret] = field(default_factory=list)
    listings: int = 0
    open_connections: int = 0
    held_until: Event | None = None
    reached: Event = field(default_factory=Event)
    dropped: Event = field(default_factory=Event)
    active_calls: int = 0
    max_active_calls: int = 0

    def server(self) -> Server[Any]:
        return Server("fake-tools", on_list_tools=self._list, on_call_tool=self._call)

    @asynccontextmanager
    async def connect(self, secret: TokenSecret, _scope: Scope) -> AsyncIterator[Client]:
        """A client of this server with this token."""
        self.tokens.append(secret)
        if self.refuses:
            raise Unauthenticated("The token is invalid.")
        async with anyio.create_task_group() as connection, Client(self.server()) as client:
            connection.start_soon(self._drop)
            self.open_connections += 1
            try:
                yield client
            finally:
                self.open_connections -= 1
                connection.cancel_scope.cancel()

    @asynccontextmanager
    async def _count_active(self) -> AsyncIterator[None]:
        self.active_calls += 1
        self.max_active_calls = max(self.max_active_calls, self.active_calls)
        await anyio.lowlevel.checkpoint()
        yield
        self.active_calls -= 1

    async def _drop(self) -> None:
        await self.dropped.wait()
        raise ConnectionError("The connection to the tools is gone.")

    async def _list(self, _: Any, params: PaginatedRequestParams | None) -> ListToolsResult:
        start = int(params.cursor) if params and params.cursor else 0
        end = start + self.page_size
        self.listings += start == 0
        return ListToolsResult(
            tools=list(self.tools[start:end]), next_cursor=str(end) if end < len(self.tools) else None
        )

    async def _call(self, _: Any, params: CallToolRequestParams) -> CallToolResult:
        meta = dict(params.meta or {})
        self.calls.append(ReceivedCall(params.name, params.arguments or {}, meta))
        self.reached.set()
        async with self._count_active():
            if self.held_until:
                await self.held_until.wait()
        if params.name == "crash":
            raise RuntimeError("internal-detail-that-must-not-leak")
        if params.name == "ask":
            waiting = _result({"code": "approval-required", "detail": "Ask first."}, is_error=True)
            return waiting.model_copy(update={"meta": {"latchkey/waiting": True}, "structured_content": None})
        if params.name == "fail":
            return _result({"code": "invalid", "detail": "Not on a Sunday."}, is_error=True)
        if not {*(params.arguments or {})} <= {"text", "due", "wrong"}:
            return _result({"code": "invalid", "detail": "Unknown argument."}, is_error=True)
        return _result({"noted": (params.arguments or {}).get("text")})


def _result(content: dict[str, Any], *, is_error: bool = False) -> CallToolResult:
    text = TextContent(type="text", text=json.dumps(content, ensure_ascii=False))
    return CallToolResult(content=[text], structured_content=content, is_error=is_error)
