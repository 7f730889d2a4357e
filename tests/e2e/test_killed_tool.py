"""`kill -9` while a tool calls another service: no result is recorded, and the tool never runs again for that call."""

import asyncio
from pathlib import Path
from typing import Any

import httpx2
import pytest

from tests.e2e.service_process import Environment, Replica, running_service
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
