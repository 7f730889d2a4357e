"""The MCP client of the OpenAI Agents SDK. It chooses the protocol version itself."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

from agents.exceptions import UserError
from agents.mcp import MCPServerStdio, MCPServerStreamableHttp
from mcp_types import ListResourcesResult

from tests.interop.client import Endpoint, Era, HttpEndpoint, Refused, ToolResult
from tests.interop.clients.python_sdk import converted_errors, text_of, tool_result


@dataclass(frozen=True)
class AgentsSdk:
    server: MCPServerStreamableHttp | MCPServerStdio

    @property
    def version(self) -> str | None:
        return self.server.session.protocol_version if self.server.session else None

    async def tools(self) -> list[str]:
        with converted_errors():
            return [tool.name for tool in await self.server.list_tools()]

    async def call(self, name: str, arguments: dict[str, Any]) -> ToolResult:
        with converted_errors():
            return tool_result(await self.server.call_tool(name, arguments))

    async def resources(self) -> list[str]:
        items: list[str] = []
        page: ListResourcesResult | None = None
        with converted_errors():
            while page is None or page.next_cursor:
                page = await self.server.list_resources(page.next_cursor if page else None)
                items += [str(one.uri) for one in page.resources]
        return items

    async def read(self, uri: str) -> str:
        with converted_errors():
            return text_of(await self.server.read_resource(uri))


@asynccontextmanager
async def agents_sdk(endpoint: Endpoint, _: Era) -> AsyncIterator[AgentsSdk]:
    server = _server(endpoint)
    try:
        with converted_errors():
            await server.connect()  # type: ignore[no-untyped-call]
    except UserError as error:
        raise Refused(str(error)) from error
    try:
        yield AgentsSdk(server)
    finally:
        await server.cleanup()  # type: ignore[no-untyped-call]


def _server(endpoint: Endpoint) -> MCPServerStreamableHttp | MCPServerStdio:
    if isinstance(endpoint, HttpEndpoint):
        headers = {"Authorization": f"Bearer {endpoint.bearer}"}
        return MCPServerStreamableHttp(params={"url": endpoint.url, "headers": headers})
    return MCPServerStdio(
        params={"command": endpoint.command, "args": endpoint.args, "env": endpoint.env},
        client_session_timeout_seconds=30,
    )
