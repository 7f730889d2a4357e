"""The MCP client of the OpenAI Agents SDK. It chooses the protocol version itself."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

from agents.exceptions import UserError
from agents.mcp import MCPServerStdio, MCPServerStreamableHttp
from mcp_types import ListResourcesResult

from tests.interop.guest import Answer, Door, Era, HttpDoor, TurnedAway
from tests.interop.guests.python_sdk import answer_of, heard, text_of


@dataclass(frozen=True)
class AgentsSdk:
    server: MCPServerStreamableHttp | MCPServerStdio

    @property
    def version(self) -> str | None:
        return self.server.session.protocol_version if self.server.session else None

    async def tools(self) -> list[str]:
        with heard():
            return [tool.name for tool in await self.server.list_tools()]

    async def call(self, name: str, arguments: dict[str, Any]) -> Answer:
        with heard():
            return answer_of(await self.server.call_tool(name, arguments))

    async def resources(self) -> list[str]:
        found: list[str] = []
        page: ListResourcesResult | None = None
        with heard():
            while page is None or page.next_cursor:
                page = await self.server.list_resources(page.next_cursor if page else None)
                found += [str(one.uri) for one in page.resources]
        return found

    async def read(self, uri: str) -> str:
        with heard():
            return text_of(await self.server.read_resource(uri))


@asynccontextmanager
async def agents_sdk(door: Door, _: Era) -> AsyncIterator[AgentsSdk]:
    server = _server(door)
    try:
        with heard():
            await server.connect()  # type: ignore[no-untyped-call]
    except UserError as error:
        raise TurnedAway(str(error)) from error
    try:
        yield AgentsSdk(server)
    finally:
        await server.cleanup()  # type: ignore[no-untyped-call]


def _server(door: Door) -> MCPServerStreamableHttp | MCPServerStdio:
    if isinstance(door, HttpDoor):
        headers = {"Authorization": f"Bearer {door.bearer}"}
        return MCPServerStreamableHttp(params={"url": door.url, "headers": headers})
    return MCPServerStdio(
        params={"command": door.command, "args": door.args, "env": door.env}, client_session_timeout_seconds=30
    )
