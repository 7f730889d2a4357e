"""Context tokens over HTTP: minting, grants, expiry and revocation."""

from datetime import datetime, timedelta

import mcp
import pytest

from tests.support.service import ApiUser, Service

pytestmark = pytest.mark.asyncio(loop_scope="session")

TASKS = ["tasks:read", "tasks:write"]


async def test_context_token_secret_is_returned_only_when_minted(ada: ApiUser) -> None:
    made = await ada.post("context-tokens", json={"grants": TASKS})
    token = made.json()
    secret = token.pop("token")

    assert made.headers["location"].endswith(f"/context-tokens/{token['id']}")
    assert secret.startswith("lk_")
    assert len(secret) > 40
    assert await ada.list_items("context-tokens") == [token]
    assert token["revoked_at"] is None


async def test_context_token_expires_after_an_hour_by_default(ada: ApiUser) -> None:
    tokens = [await ada.create("context-tokens", grants=TASKS, **ttl) for ttl in ({}, {"ttl_s": 60}, {"ttl_s": 86_400})]
    lives = [datetime.fromisoformat(item["expires_at"]) - datetime.fromisoformat(item["created_at"]) for item in tokens]

    assert lives == [timedelta(hours=1), timedelta(minutes=1), timedelta(days=1)]


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"grants": []},
        {"grants": ["tasks:admin"]},
        {"grants": "tasks:read"},
        {"grants": TASKS, "ttl_s": 59},
        {"grants": TASKS, "ttl_s": 86_401},
        {"grants": TASKS, "ttl_s": "3600"},
        {"grants": TASKS, "ttl_s": 60.5},
        {"grants": TASKS, "user_id": "bob"},
        {"grants": TASKS, "turn_id": "01a1f88f-b877-757a-8488-188f3c989d6d"},
    ],
)
async def test_context_token_with_invalid_parameters_is_invalid(ada: ApiUser, body: dict[str, object]) -> None:
    refused = await ada.post("context-tokens", json=body)

    assert (refused.status_code, refused.json()["code"]) == (422, "invalid")
    assert await ada.list_items("context-tokens") == []


async def test_context_token_is_limited_to_mcp_and_its_grants(service: Service, ada: ApiUser) -> None:
    token = (await ada.create("context-tokens", grants=["tasks:read"]))["token"]
    await ada.create("tasks", title="Buy milk")
    holder = ApiUser(ada.user_id, token, ada.client)
    async with service.mcp_client(token) as client:
        tools = [tool.name for tool in (await client.list_tools()).tools]
        listing = await client.call_tool("list_tasks", {})
    refused = [await holder.get("tasks"), await holder.post("context-tokens", json={"grants": TASKS})]

    assert tools == ["list_tasks"]
    assert [item["title"] for item in listing.structured_content["items"]] == ["Buy milk"]
    assert [(response.status_code, response.json()["code"]) for response in refused] == [(401, "unauthenticated")] * 2


async def test_context_token_revoke_takes_effect_at_once(service: Service, ada: ApiUser) -> None:
    token = await ada.create("context-tokens", grants=TASKS)
    async with service.mcp_client(token["token"]) as client:
        await client.call_tool("add_task", {"title": "Buy milk"})
        revoked = await ada.delete(f"context-tokens/{token['id']}")
        with pytest.raises(mcp.MCPError):
            await client.call_tool("add_task", {"title": "Buy oats"})

    assert revoked.status_code == 204
    assert [task["title"] for task in await ada.list_items("tasks")] == ["Buy milk"]


async def test_context_token_revoke_twice_keeps_the_first_time(ada: ApiUser) -> None:
    token = await ada.create("context-tokens", grants=TASKS)
    first = await ada.delete(f"context-tokens/{token['id']}")
    revoked = await ada.list_items("context-tokens")
    second = await ada.delete(f"context-tokens/{token['id']}")

    assert (first.status_code, second.status_code) == (204, 204)
    assert revoked[0]["revoked_at"] is not None
    assert await ada.list_items("context-tokens") == revoked


async def test_context_token_of_a_conversation_is_revoked_with_its_delete(service: Service, ada: ApiUser) -> None:
    conversation = await ada.create("conversations")
    token = await ada.create("context-tokens", grants=TASKS, conversation_id=conversation["id"])
    async with service.mcp_client(token["token"]) as client:
        made = await client.call_tool("add_task", {"title": "Buy milk"})
        await ada.delete(f"conversations/{conversation['id']}")
        with pytest.raises(mcp.MCPError):
            await client.call_tool("list_tasks", {})

    assert made.structured_content["conversation_id"] == conversation["id"]
    assert await ada.list_items("context-tokens") == []


async def test_context_token_of_a_turn_is_listed_and_revoked_at_its_end(ada: ApiUser) -> None:
    answer = await ada.chat("hello")
    (token,) = await ada.list_items("context-tokens")

    assert (token["turn_id"], token["conversation_id"]) == (answer["turn_id"], answer["conversation_id"])
    assert token["grants"] == TASKS
    assert token["revoked_at"] is not None
