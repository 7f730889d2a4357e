"""Tools that call another service, in whole processes: `kill -9` meanwhile, and calls of the Claude CLI."""

import asyncio
from functools import partial
from pathlib import Path
from typing import Any

import httpx2
import pytest

from tests.e2e.claude_service import claude_service, claude_settings
from tests.e2e.service_process import BASE_SETTINGS, Environment, Replica, running_service
from tests.fakes.model_script import calls, says
from tests.fakes.model_server import model_server
from tests.fakes.shop_server import shop_server

ORDER = {
    "jsonrpc": "2.0",
    "id": 1,
    "method": "tools/call",
    "params": {"name": "order_item", "arguments": {"sku": "bell"}, "_meta": {"latchkey/callId": "call-1"}},
}


async def order(replica: Replica, token: str) -> Any:
    """Call the tool with the same id each time, and return its result."""
    headers = {"accept": "application/json, text/event-stream"}
    response = await asyncio.to_thread(replica.request, "POST", "/mcp", token, json=ORDER, headers=headers)
    return response.json()["result"]


async def test_killed_process_leaves_no_result_and_tool_never_runs_again(
    home: Path, configured: Environment, token: str
) -> None:
    async with shop_server() as shop:
        environment = {**configured, "LATCHKEY_APP": "tests.apps.shop:app", "SHOP_URL": shop.url}
        with running_service(home=home, environment=environment) as replica:
            calling = asyncio.create_task(order(replica, token))
            await shop.received.wait()
            replica.process.kill()
            with pytest.raises(httpx2.TransportError):
                await calling
        shop.is_open.set()
        with running_service(home=home, environment=environment) as again:
            repeated = [await order(again, token) for _ in range(2)]

    assert [result["isError"] for result in repeated] == [True, True]
    assert all("no result recorded" in result["content"][0]["text"] for result in repeated)
    assert shop.orders == 1


async def test_claude_cli_calls_tool_outside_transaction(home: Path, sqlite_url: str, token: str) -> None:
    """The CLI reaches the tool at `/mcp` with the token of its turn."""
    async with model_server() as model, shop_server() as shop:
        model.script += [calls(("order_item", '{"sku":"bell"}')), says("Ordered.")]
        environment = {
            **BASE_SETTINGS,
            **claude_settings(model),
            "LATCHKEY_DATABASE_URL": sqlite_url,
            "LATCHKEY_AGENT": "claude",
            "LATCHKEY_APP": "tests.apps.shop:app",
            "SHOP_URL": shop.url,
        }
        with claude_service(home, environment, token) as service:
            chat = partial(service.request, "POST", "chat", json={"message": "Order a bell"})
            chatting = asyncio.create_task(asyncio.to_thread(chat))
            await shop.received.wait()
            shop.is_open.set()
            answer = (await chatting).json()

    assert answer["response"] == "Ordered."
    assert [call["result"] for call in answer["tool_calls"]] == [{"number": "N1", "sku": "bell"}]
    assert [call["id"] for call in answer["tool_calls"]] == shop.keys
