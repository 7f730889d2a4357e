"""The Python SDK's own client."""

from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass
from typing import Any

import httpx2
from mcp import Client, MCPError, StdioServerParameters
from mcp.client import ClientRequestContext
from mcp.client.session import ElicitationFnT
from mcp.client.streamable_http import streamable_http_client
from mcp_types import (
    CallToolResult,
    ElicitRequestParams,
    ElicitResult,
    ListResourcesResult,
    ReadResourceResult,
    TextContent,
    TextResourceContents,
)

from tests.interop.client import Endpoint, Era, HttpEndpoint, Refused, ToolResult
from tests.polling import TIMEOUT_S

MODES = {"legacy": "legacy", "auto": "auto", "modern": "2026-07-28"}


@dataclass(frozen=True)
class PythonSdk:
    client: Client

    @property
    def version(self) -> str:
        return self.client.protocol_version

    async def tools(self) -> list[str]:
        with converted_errors():
            return [tool.name for tool in (await self.client.list_tools()).tools]

    async def call(self, name: str, arguments: dict[str, Any]) -> ToolResult:
        with converted_errors():
            return tool_result(await self.client.call_tool(name, arguments))

    async def resources(self) -> list[str]:
        items: list[str] = []
        page: ListResourcesResult | None = None
        with converted_errors():
            while page is None or page.next_cursor:
                page = await self.client.list_resources(cursor=page.next_cursor if page else None)
                items += [str(one.uri) for one in page.resources]
        return items

    async def read(self, uri: str) -> str:
        with converted_errors():
            return text_of(await self.client.read_resource(uri))


@asynccontextmanager
async def python_sdk(endpoint: Endpoint, era: Era) -> AsyncIterator[PythonSdk]:
    async with AsyncExitStack() as stack:
        with converted_errors():
            transport = await _transport(endpoint, stack)
            client = Client(transport, mode=MODES[era], elicitation_callback=_elicitation_callback(endpoint))
            connected = PythonSdk(await stack.enter_async_context(client))
        yield connected


async def _transport(endpoint: Endpoint, stack: AsyncExitStack) -> Any:
    if not isinstance(endpoint, HttpEndpoint):
        return StdioServerParameters(command=endpoint.command, args=endpoint.args, env=endpoint.env)
    headers = {"Authorization": f"Bearer {endpoint.bearer}"}
    http = await stack.enter_async_context(httpx2.AsyncClient(headers=headers, timeout=TIMEOUT_S))
    return streamable_http_client(endpoint.url, http_client=http)


def _elicitation_callback(endpoint: Endpoint) -> ElicitationFnT | None:
    if not isinstance(endpoint, HttpEndpoint) or endpoint.answer is None:
        return None
    result = ElicitResult.model_validate(endpoint.answer)

    async def answer(context: ClientRequestContext, params: ElicitRequestParams) -> ElicitResult:
        assert params.message, context
        return result

    return answer


@contextmanager
def converted_errors() -> Iterator[None]:
    """Raise the errors of the SDK as `Refused`."""
    try:
        yield
    except MCPError as error:
        raise Refused(str(error)) from error
    except ExceptionGroup as group:
        raise Refused(str(group.exceptions)) from group


def tool_result(result: CallToolResult) -> ToolResult:
    (output,) = result.content
    assert isinstance(output, TextContent)
    return ToolResult(output.text, bool(result.is_error), result.structured_content)


def text_of(result: ReadResourceResult) -> str:
    (content,) = result.contents
    assert isinstance(content, TextResourceContents)
    return content.text
