"""The Python SDK's own client."""

from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass
from typing import Any

import httpx2
from mcp import Client, MCPError, StdioServerParameters
from mcp.client.streamable_http import streamable_http_client
from mcp_types import CallToolResult, ListResourcesResult, ReadResourceResult, TextContent, TextResourceContents

from tests.interop.guest import Answer, Door, Era, HttpDoor, TurnedAway
from tests.polling import TIMEOUT_S

MODES = {"legacy": "legacy", "auto": "auto", "modern": "2026-07-28"}


@dataclass(frozen=True)
class PythonSdk:
    client: Client

    @property
    def version(self) -> str:
        return self.client.protocol_version

    async def tools(self) -> list[str]:
        with heard():
            return [tool.name for tool in (await self.client.list_tools()).tools]

    async def call(self, name: str, arguments: dict[str, Any]) -> Answer:
        with heard():
            return answer_of(await self.client.call_tool(name, arguments))

    async def resources(self) -> list[str]:
        found: list[str] = []
        page: ListResourcesResult | None = None
        with heard():
            while page is None or page.next_cursor:
                page = await self.client.list_resources(cursor=page.next_cursor if page else None)
                found += [str(one.uri) for one in page.resources]
        return found

    async def read(self, uri: str) -> str:
        with heard():
            return text_of(await self.client.read_resource(uri))


@asynccontextmanager
async def python_sdk(door: Door, era: Era) -> AsyncIterator[PythonSdk]:
    async with AsyncExitStack() as inside:
        with heard():
            client = Client(await _transport(door, inside), mode=MODES[era])
            guest = PythonSdk(await inside.enter_async_context(client))
        yield guest


async def _transport(door: Door, inside: AsyncExitStack) -> Any:
    if not isinstance(door, HttpDoor):
        return StdioServerParameters(command=door.command, args=door.args, env=door.env)
    headers = {"Authorization": f"Bearer {door.bearer}"}
    http = await inside.enter_async_context(httpx2.AsyncClient(headers=headers, timeout=TIMEOUT_S))
    return streamable_http_client(door.url, http_client=http)


@contextmanager
def heard() -> Iterator[None]:
    """What the SDK raises when the service refuses, as `TurnedAway`."""
    try:
        yield
    except MCPError as error:
        raise TurnedAway(str(error)) from error
    except ExceptionGroup as group:
        raise TurnedAway(str(group.exceptions)) from group


def answer_of(result: CallToolResult) -> Answer:
    (said,) = result.content
    assert isinstance(said, TextContent)
    return Answer(said.text, bool(result.is_error), result.structured_content)


def text_of(result: ReadResourceResult) -> str:
    (content,) = result.contents
    assert isinstance(content, TextResourceContents)
    return content.text
