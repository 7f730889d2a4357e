"""Approval with the client of the official Python SDK, which answers input requests by itself."""

from typing import Any

import pytest
from mcp import Client
from mcp.client import ClientRequestContext
from mcp.client.streamable_http import streamable_http_client
from mcp_types import CallToolResult, ElicitRequestParams, ElicitResult, TextContent

from latchkey.interfaces.mcp.principal import Principal, with_principal
from tests.apps.guarded import READ, WRITE, orders
from tests.integration.mcp.approvals.calls import TEXT, titles
from tests.integration.mcp.mcp_service import MCP_URL, ME, McpService, OpenClient


class ElicitationHandler:
    """Answers each elicitation with the same response, and keeps the messages."""

    def __init__(self, **response: Any) -> None:
        self.response = ElicitResult(**response)
        self.messages: list[str] = []

    async def answer(self, context: ClientRequestContext, params: ElicitRequestParams) -> ElicitResult:
        assert context.session.protocol_version == "2026-07-28"
        self.messages.append(params.message)
        return self.response


async def call_as(
    service: McpService, handler: ElicitationHandler | None, mode: str, tool: str, arguments: dict[str, Any]
) -> CallToolResult:
    callback = handler.answer if handler else None
    async with service.http() as http:
        http.headers["authorization"] = f"Bearer {service.jwt()}"
        transport = streamable_http_client(MCP_URL, http_client=http)
        async with Client(transport, mode=mode, elicitation_callback=callback, cache=None) as client:
            return await client.call_tool(tool, arguments)


def text_of(result: CallToolResult) -> str:
    (block,) = result.content
    assert isinstance(block, TextContent)
    return block.text


@pytest.mark.parametrize("mode", ["auto", "2026-07-28"])
async def test_sdk_client_asks_the_user_and_returns_the_result(service: McpService, mode: str) -> None:
    handler = ElicitationHandler(action="accept", content={"approve": True})
    published = await call_as(service, handler, mode, "publish", TEXT)
    ordered = await call_as(service, handler, mode, "order", {"sku": "bell"})

    assert published.structured_content
    assert published.structured_content["title"] == "Hello"
    assert ordered.structured_content == {"sku": "bell"}
    assert ["publish" in handler.messages[0], "order" in handler.messages[1]] == [True, True]
    assert (await titles(service), len(orders), len(handler.messages)) == (["Hello"], 1, 2)


@pytest.mark.parametrize(
    "response",
    [{"action": "decline"}, {"action": "cancel"}, {"action": "accept", "content": {"approve": False}}],
    ids=["decline", "cancel", "unchecked"],
)
async def test_sdk_client_returns_tool_error_if_the_user_declines(service: McpService, response: Any) -> None:
    result = await call_as(service, ElicitationHandler(**response), "auto", "publish", TEXT)

    assert result.is_error
    assert '"declined"' in text_of(result)
    assert await titles(service) == []


@pytest.mark.parametrize("mode", ["auto", "legacy"])
async def test_sdk_client_that_cannot_ask_gets_tool_error(service: McpService, mode: str) -> None:
    """With the current protocol it has no callback, with the older one the service cannot send requests."""
    handler = ElicitationHandler(action="accept", content={"approve": True}) if mode == "legacy" else None
    result = await call_as(service, handler, mode, "publish", TEXT)

    assert result.is_error
    assert '"approval-required"' in text_of(result)
    assert await titles(service) == []


async def test_older_protocol_is_not_asked_on_a_connection_that_declares_forms(service: McpService) -> None:
    """Such a connection has the capability, and its results have no input requests."""
    handler = ElicitationHandler(action="accept", content={"approve": True})
    server = with_principal(service.server, Principal.of(ME))
    async with Client(server, mode="legacy", elicitation_callback=handler.answer) as client:
        result = await client.call_tool("publish", TEXT)

    assert result.is_error
    assert '"approval-required"' in text_of(result)
    assert (await titles(service), handler.messages) == ([], [])


async def test_client_with_context_token_gets_tool_error(service: McpService, open_client: OpenClient) -> None:
    """In process and over HTTP, in each version. The token of `latchkey mcp` is one, too."""
    async with open_client(service, await service.secret(READ, WRITE)) as client:
        result = await client.call_tool("publish", TEXT)

    assert result.is_error
    assert '"approval-required"' in text_of(result)
    assert await titles(service) == []
