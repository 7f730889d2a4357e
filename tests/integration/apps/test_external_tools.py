"""Tools of an app outside a transaction, over MCP and in chat turns: one call of the other service, nothing held."""

import asyncio
import json
import os
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, cast

import mcp
import pytest
import pytest_asyncio

from latchkey.interfaces.mcp import principal
from tests.fakes.model_script import calls, says
from tests.fakes.model_server import ModelServer
from tests.fakes.shop_server import ShopServer, shop_server
from tests.polling import wait_until
from tests.support.captured_log import captured_log
from tests.support.service import ApiUser, Service, model_variables, run_service, settings_for

pytestmark = pytest.mark.asyncio(loop_scope="session")

LATCHKEY = Path(sys.executable).with_name("latchkey")
BELL = {"sku": "bell"}
ORDERED = {"number": "N1", "sku": "bell"}
APP = {"LATCHKEY_APP": "tests.apps.shop:app"}
ACCEPT = {"accept": "application/json, text/event-stream"}
RAW_CALL = {
    "jsonrpc": "2.0",
    "id": 1,
    "method": "tools/call",
    "params": {"name": "order_item", "arguments": BELL, "_meta": {"latchkey/callId": "call-1"}},
}


@pytest_asyncio.fixture(loop_scope="session")
async def shop(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[ShopServer]:
    async with shop_server() as shop:
        monkeypatch.setenv("SHOP_URL", shop.url)
        yield shop


@pytest_asyncio.fixture(loop_scope="session")
async def replica(shared_database_url: str, shop: ShopServer) -> AsyncIterator[Service]:
    async with run_service(settings_for(shared_database_url, **APP), validate=False) as replica:
        yield replica


async def call(replica: Service, bearer: str, tool: str, arguments: dict[str, str], call_id: str | None = None) -> Any:
    meta = cast("Any", {"latchkey/callId": call_id}) if call_id else None
    async with replica.mcp_client(bearer) as client:
        return await client.call_tool(tool, arguments, meta=meta)


def error_of(result: Any) -> Any:
    assert result.is_error, result
    return json.loads(result.content[0].text)


async def test_tool_outside_transaction_is_listed_with_its_hints(replica: Service) -> None:
    async with replica.mcp_client(replica.user().token) as client:
        tools = {tool.name: tool for tool in (await client.list_tools()).tools}

    annotations = tools["check_stock"].annotations
    assert annotations is not None
    assert (annotations.read_only_hint, annotations.open_world_hint) == (True, True)
    assert tools["order_item"].input_schema["properties"].keys() == {"sku"}
    assert tools["order_item"].output_schema is not None


async def test_tool_calls_other_service_with_idempotency_key(replica: Service, shop: ShopServer) -> None:
    shop.is_open.set()
    ada = replica.user()
    ordered = await call(replica, ada.token, "order_item", BELL, "call-1")
    repeated = await call(replica, ada.token, "order_item", BELL, "call-1")
    stock = await call(replica, ada.token, "check_stock", BELL)

    assert ordered.structured_content == repeated.structured_content == ORDERED
    assert stock.structured_content == {"sku": "bell", "count": 7}
    assert shop.orders == 1
    assert len(shop.keys[0]) == 36


@pytest.mark.parametrize(("status", "code"), [(409, "conflict"), (503, "unavailable")])
async def test_failure_of_other_service_is_tool_error(
    replica: Service, shop: ShopServer, status: int, code: str
) -> None:
    shop.is_open.set()
    shop.status = status
    result = await call(replica, replica.user().token, "order_item", BELL)

    assert error_of(result)["code"] == code


async def test_client_disconnect_does_not_stop_tool(shared_database_url: str, shop: ShopServer) -> None:
    """Other users write meanwhile. A repeated call gets the result once there is one."""
    settings = settings_for(shared_database_url, **APP)
    async with run_service(settings, validate=False, on_socket=True) as replica:
        ada, bob = replica.user(), replica.user()
        request = ada.client.post("/mcp", json=RAW_CALL, headers={"authorization": f"Bearer {ada.token}", **ACCEPT})
        calling = asyncio.create_task(request)
        await shop.received.wait()
        for n in range(5):
            await bob.create("tasks", title=f"Task {n}")
        calling.cancel()
        await asyncio.wait([calling])
        early = await call(replica, ada.token, "order_item", BELL, "call-1")
        shop.is_open.set()

        async def has_result() -> bool:
            return not (await call(replica, ada.token, "order_item", BELL, "call-1")).is_error

        await wait_until(has_result)

    assert error_of(early)["detail"].startswith("no result recorded")
    assert shop.orders == 1
    assert not shop.client_left.is_set()


async def test_tool_may_take_longer_than_a_transactional_call(
    replica: Service, shop: ShopServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(principal, "CALL_LIMIT_S", 0.3)
    calling = asyncio.create_task(call(replica, replica.user().token, "order_item", BELL))
    await shop.received.wait()
    done, _ = await asyncio.wait([calling], timeout=0.6)
    shop.is_open.set()

    assert not done
    assert (await calling).structured_content == ORDERED


@pytest.mark.parametrize("tool", ["count_items", "count_elsewhere"])
@pytest.mark.parametrize(
    ("fault", "code", "logged"),
    [
        ("wrong type", "internal", "Expected `int`, got `str` - at `$.count`"),
        ("no struct", "internal", "Expected `Stock`, got `dict`"),
        ("unknown field", "internal", "Object contains unknown field `supplier` - at `$`"),
        ("too large", "too-large", None),
        ("exception", "internal", None),
    ],
)
async def test_faulty_result_is_tool_error_and_nothing_is_stored(
    replica: Service, tool: str, fault: str, code: str, logged: str | None
) -> None:
    ada = replica.user()
    with captured_log() as log:
        result = await call(replica, ada.token, tool, {"fault": fault}, "call-1")
        repeated = await call(replica, ada.token, tool, {"fault": fault}, "call-1")

    assert error_of(result)["code"] == code
    assert error_of(repeated) == error_of(result)
    assert await ada.list_items("tasks") == []
    assert "LookupError" not in json.dumps(error_of(result))
    assert [line["detail"] for line in log.lines("tool_result_invalid")] == ([logged] if logged else [])
    assert [line["tool"] for line in log.lines("tool_failed")] == ([tool] if fault == "exception" else [])


@pytest.mark.parametrize("tool", ["count_items", "count_elsewhere"])
async def test_valid_result_passes_the_check(replica: Service, tool: str) -> None:
    result = await call(replica, replica.user().token, tool, {"fault": "none"})

    assert result.structured_content == {"sku": "bell", "count": 1}


async def chat_is_running(ada: ApiUser) -> dict[str, Any]:
    """The conversation's only turn."""
    (conversation,) = await ada.list_items("conversations")
    (turn,) = await ada.list_items(f"conversations/{conversation['id']}/turns")
    return turn


async def test_chat_turn_calls_tool_outside_transaction(replica: Service, shop: ShopServer) -> None:
    """The call is shown as started while it runs, and with its result afterwards."""
    ada = replica.user()
    chatting = asyncio.create_task(ada.chat('/order_item {"sku": "bell"}'))
    await shop.received.wait()
    running = await chat_is_running(ada)
    shop.is_open.set()
    answer = await chatting

    assert [(call["name"], call["result"]) for call in running["tool_calls"]] == [("order_item", None)]
    assert [(call["name"], call["result"]) for call in answer["tool_calls"]] == [("order_item", ORDERED)]
    assert answer["tool_calls"][0]["id"] == running["tool_calls"][0]["id"] == shop.keys[0]
    assert shop.orders == 1


async def test_cancelled_turn_stops_tool_and_records_no_result(replica: Service, shop: ShopServer) -> None:
    ada = replica.user()
    chatting = asyncio.create_task(ada.post("chat", json={"message": '/order_item {"sku": "bell"}'}))
    await shop.received.wait()
    running = await chat_is_running(ada)
    cancelled = await ada.post(f"turns/{running['id']}/cancel")
    response = await chatting
    await asyncio.wait_for(shop.client_left.wait(), 30)
    turn = (await ada.get(f"turns/{running['id']}")).json()
    shop.is_open.set()
    later = await ada.chat("Hello", conversation_id=running["conversation_id"])

    assert (cancelled.json()["status"], response.status_code) == ("cancelled", 409)
    assert [(call["result"], call["is_error"]) for call in turn["tool_calls"]] == [(None, True)]
    assert later["tool_calls"] == []
    assert shop.orders == 1


async def test_model_is_given_result_of_tool_outside_transaction(
    shared_database_url: str, shop: ShopServer, model: ModelServer
) -> None:
    shop.is_open.set()
    model.script.extend([calls(("order_item", json.dumps(BELL))), says("Ordered.")])
    settings = settings_for(shared_database_url, **APP, **model_variables(model))
    async with run_service(settings, validate=False) as replica:
        answer = await replica.user().chat("Order a bell")

    assert answer["response"] == "Ordered."
    assert [call["result"] for call in answer["tool_calls"]] == [ORDERED]
    assert json.loads(model.requests[-1].results[-1]) == ORDERED


async def test_stdio_client_calls_tool_outside_transaction(
    replica: Service, shared_database_url: str, shop: ShopServer
) -> None:
    shop.is_open.set()
    token = (await replica.user().create("context-tokens", grants=["shop:write"]))["token"]
    variables = {
        "PATH": os.environ["PATH"],
        "LATCHKEY_DATABASE_URL": shared_database_url,
        "LATCHKEY_CONTEXT_TOKEN": token,
        "SHOP_URL": shop.url,
        **APP,
    }
    async with mcp.Client(mcp.StdioServerParameters(command=str(LATCHKEY), args=["mcp"], env=variables)) as client:
        ordered = await client.call_tool("order_item", BELL)

    assert ordered.structured_content == ORDERED
    assert shop.orders == 1
