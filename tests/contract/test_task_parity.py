"""Tasks over REST, over MCP and in a chat turn: the same data, and the same code and text for each error."""

import json
from collections.abc import Awaitable, Callable
from typing import Any
from uuid import uuid4

import pytest
import pytest_asyncio
from mcp_types import CallToolResult, TextContent

from tests.support.operations import OPERATIONS
from tests.support.service import ApiUser, Service

pytestmark = pytest.mark.asyncio(loop_scope="session")

Json = dict[str, Any]
Call = Callable[[str, Json], Awaitable[Json]]
"""Calls a tool, or the REST operation of the same name. Returns its result, or `{code, detail}` of an error."""

MILK = {"title": "Buy milk 🥛", "description": "two", "due_at": "2026-03-01T09:00:00.000001+02:00"}
INTERFACES = ["rest", "mcp", "chat"]


@pytest_asyncio.fixture(loop_scope="session")
async def interfaces(service: Service, ada: ApiUser) -> dict[str, Call]:
    async def over_mcp(tool: str, arguments: Json) -> Json:
        async with service.mcp_client(ada.token) as client:
            return content_of(await client.call_tool(tool, arguments))

    async def over_chat(tool: str, arguments: Json) -> Json:
        (call,) = (await ada.chat(f"/{tool} {json.dumps(arguments)}"))["tool_calls"]
        result: Json = call["result"]
        return result

    async def over_rest(tool: str, arguments: Json) -> Json:
        response = await OPERATIONS[tool].call(ada, arguments)
        if response.is_success:
            body: Json = response.json() if response.content else {}
            return body
        return {name: response.json()[name] for name in ("code", "detail")}

    return {"rest": over_rest, "mcp": over_mcp, "chat": over_chat}


def content_of(result: CallToolResult) -> Json:
    """Return the structured content of a tool result. Its text, which a model reads, must be the same."""
    (text,) = result.content
    assert isinstance(text, TextContent)
    content: Json = json.loads(text.text)
    assert result.is_error or result.structured_content == content
    return content


@pytest.mark.parametrize("writer", INTERFACES)
async def test_task_written_over_one_interface_reads_the_same_over_all(
    ada: ApiUser, interfaces: dict[str, Call], writer: str
) -> None:
    written = await interfaces[writer]("add_task", MILK)
    read = [await interfaces[reader]("list_tasks", {}) for reader in INTERFACES]

    assert read == [{"items": [written], "next_cursor": None}] * 3
    assert (await ada.get(f"tasks/{written['id']}")).json() == written
    assert written["due_at"] == "2026-03-01T07:00:00.000001Z"
    assert (written["title"], written["conversation_id"] is None) == (MILK["title"], writer != "chat")


@pytest.mark.parametrize("writer", INTERFACES)
async def test_task_update_over_one_interface_is_visible_over_all(
    ada: ApiUser, interfaces: dict[str, Call], writer: str
) -> None:
    task = await ada.create("tasks", **MILK)
    changed = await interfaces[writer]("update_task", {"task_id": task["id"], "description": None, "version": 1})
    completed = await interfaces[writer]("complete_task", {"task_id": task["id"]})
    again = await interfaces[writer]("complete_task", {"task_id": task["id"]})

    assert (changed["description"], changed["version"]) == (None, 2)
    assert (completed["status"], completed["version"]) == ("completed", 3)
    assert again == completed
    assert [await interfaces[reader]("list_tasks", {"status": "completed"}) for reader in INTERFACES] == [
        {"items": [completed], "next_cursor": None}
    ] * 3


@pytest.mark.parametrize("writer", INTERFACES)
async def test_task_deleted_over_one_interface_is_gone_from_all(
    ada: ApiUser, interfaces: dict[str, Call], writer: str
) -> None:
    task = await ada.create("tasks", **MILK)
    deleted = await interfaces[writer]("delete_task", {"task_id": task["id"]})

    assert deleted == ({} if writer == "rest" else task)
    assert [await interfaces[reader]("list_tasks", {}) for reader in INTERFACES] == [
        {"items": [], "next_cursor": None}
    ] * 3


@pytest.mark.parametrize("reader", INTERFACES)
async def test_pagination_cursor_of_rest_continues_over_any_interface(
    ada: ApiUser, interfaces: dict[str, Call], reader: str
) -> None:
    tasks = [await ada.create("tasks", title=f"number {number}") for number in range(3)]
    first = await interfaces["rest"]("list_tasks", {"limit": 2})
    rest = await interfaces[reader]("list_tasks", {"limit": 2, "cursor": first["next_cursor"]})

    assert first["items"] + rest["items"] == tasks[::-1]


INVALID_CALLS: dict[str, tuple[str, Json, str]] = {
    "unknown task": ("complete_task", {"task_id": str(uuid4())}, "not-found"),
    "unknown task to delete": ("delete_task", {"task_id": str(uuid4())}, "not-found"),
    "missing title": ("add_task", {}, "invalid"),
    "blank title": ("add_task", {"title": " "}, "invalid"),
    "title too long": ("add_task", {"title": "a" * 201}, "invalid"),
    "title is a number": ("add_task", {"title": 5}, "invalid"),
    "unknown field": ("add_task", {"title": "a", "user_id": "bob"}, "invalid"),
    "time without offset": ("add_task", {"title": "a", "due_at": "2026-03-01T09:00:00"}, "invalid"),
    "time out of range": ("add_task", {"title": "a", "due_at": "9999-12-31T23:59:59-10:00"}, "invalid"),
    "stale version": ("update_task", {"task_id": "{mine}", "title": "b", "version": 7}, "stale-version"),
    "title set to null": ("update_task", {"task_id": "{mine}", "title": None}, "invalid"),
    "task of another user": ("update_task", {"task_id": "{theirs}", "title": "mine now"}, "not-found"),
    "invalid cursor": ("list_tasks", {"cursor": "nonsense"}, "invalid"),
}


@pytest.mark.parametrize(("tool", "arguments", "code"), INVALID_CALLS.values(), ids=INVALID_CALLS)
async def test_task_error_has_the_same_code_and_text_over_all_interfaces(
    service: Service, ada: ApiUser, interfaces: dict[str, Call], tool: str, arguments: Json, code: str
) -> None:
    mine, theirs = await ada.create("tasks", title="a"), await service.user().create("tasks", title="a")
    ids = {"{mine}": mine["id"], "{theirs}": theirs["id"]}
    params = {name: ids.get(value, value) if isinstance(value, str) else value for name, value in arguments.items()}
    errors = {name: await interfaces[name](tool, params) for name in INTERFACES}

    assert errors["rest"]["code"] == code
    assert errors["mcp"] == errors["chat"] == errors["rest"]
    assert await ada.list_items("tasks") == [mine]


async def test_invalid_token_error_has_the_same_code_and_text_over_rest_and_mcp(ada: ApiUser) -> None:
    intruder = ApiUser(ada.user_id, "not-a-token", ada.client)
    refused = await intruder.get("tasks")
    at_mcp = await ada.client.post("/mcp", json={}, headers={"authorization": "Bearer not-a-token"})

    assert (refused.status_code, at_mcp.status_code) == (401, 401)
    assert at_mcp.json()["error"]["message"] == f"{refused.json()['code']}: {refused.json()['detail']}"
