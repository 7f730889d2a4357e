"""One house, three ways in: what is written over one wire is read over another, and refused in the same words."""

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

Answer = dict[str, Any]
Ask = Callable[[str, Answer], Awaitable[Answer]]
"""Calls a tool, or its counterpart on another wire, and gives what was answered: the thing, or `{code, detail}`."""

MILK = {"title": "Buy milk 🥛", "description": "two", "due_at": "2026-03-01T09:00:00.000001+02:00"}
WIRES = ["rest", "mcp", "chat"]


@pytest_asyncio.fixture(loop_scope="session")
async def wires(service: Service, ada: ApiUser) -> dict[str, Ask]:
    async def over_mcp(tool: str, arguments: Answer) -> Answer:
        async with service.mcp_client(ada.token) as client:
            return content(await client.call_tool(tool, arguments))

    async def over_chat(tool: str, arguments: Answer) -> Answer:
        (call,) = (await ada.chat(f"/{tool} {json.dumps(arguments)}"))["tool_calls"]
        result: Answer = call["result"]
        return result

    async def over_rest(tool: str, arguments: Answer) -> Answer:
        answer = await OPERATIONS[tool].call(ada, arguments)
        if answer.is_success:
            found: Answer = answer.json() if answer.content else {}
            return found
        return {name: answer.json()[name] for name in ("code", "detail")}

    return {"rest": over_rest, "mcp": over_mcp, "chat": over_chat}


def content(result: CallToolResult) -> Answer:
    """What a program reads of an answer; a model is given the same as text."""
    (text,) = result.content
    assert isinstance(text, TextContent)
    told: Answer = json.loads(text.text)
    assert result.is_error or result.structured_content == told
    return told


@pytest.mark.parametrize("writer", WIRES)
async def test_a_task_is_the_same_whoever_wrote_it_and_whoever_reads_it(
    ada: ApiUser, wires: dict[str, Ask], writer: str
) -> None:
    written = await wires[writer]("add_task", MILK)
    read = [await wires[reader]("list_tasks", {}) for reader in WIRES]

    assert read == [{"items": [written], "next_cursor": None}] * 3
    assert (await ada.get(f"tasks/{written['id']}")).json() == written
    assert written["due_at"] == "2026-03-01T07:00:00.000001Z"
    assert (written["title"], written["conversation_id"] is None) == (MILK["title"], writer != "chat")


@pytest.mark.parametrize("writer", WIRES)
async def test_a_change_is_seen_on_every_wire(ada: ApiUser, wires: dict[str, Ask], writer: str) -> None:
    task = await ada.create("tasks", **MILK)
    changed = await wires[writer]("update_task", {"task_id": task["id"], "description": None, "version": 1})
    completed = await wires[writer]("complete_task", {"task_id": task["id"]})
    again = await wires[writer]("complete_task", {"task_id": task["id"]})

    assert (changed["description"], changed["version"]) == (None, 2)
    assert (completed["status"], completed["version"]) == ("completed", 3)
    assert again == completed
    assert [await wires[reader]("list_tasks", {"status": "completed"}) for reader in WIRES] == [
        {"items": [completed], "next_cursor": None}
    ] * 3


@pytest.mark.parametrize("writer", WIRES)
async def test_what_one_has_deleted_is_gone_for_all(ada: ApiUser, wires: dict[str, Ask], writer: str) -> None:
    task = await ada.create("tasks", **MILK)
    told = await wires[writer]("delete_task", {"task_id": task["id"]})

    assert told == ({} if writer == "rest" else task)
    assert [await wires[reader]("list_tasks", {}) for reader in WIRES] == [{"items": [], "next_cursor": None}] * 3


@pytest.mark.parametrize("reader", WIRES)
async def test_a_page_that_one_wire_began_goes_on_over_another(
    ada: ApiUser, wires: dict[str, Ask], reader: str
) -> None:
    tasks = [await ada.create("tasks", title=f"number {number}") for number in range(3)]
    first = await wires["rest"]("list_tasks", {"limit": 2})
    rest = await wires[reader]("list_tasks", {"limit": 2, "cursor": first["next_cursor"]})

    assert first["items"] + rest["items"] == tasks[::-1]


REFUSED: dict[str, tuple[str, Answer, str]] = {
    "a task that is not there": ("complete_task", {"task_id": str(uuid4())}, "not-found"),
    "deleting what is not there": ("delete_task", {"task_id": str(uuid4())}, "not-found"),
    "no title": ("add_task", {}, "invalid"),
    "a blank title": ("add_task", {"title": " "}, "invalid"),
    "a title that is too long": ("add_task", {"title": "a" * 201}, "invalid"),
    "a title that is a number": ("add_task", {"title": 5}, "invalid"),
    "a field that is not there": ("add_task", {"title": "a", "user_id": "bob"}, "invalid"),
    "a time without an offset": ("add_task", {"title": "a", "due_at": "2026-03-01T09:00:00"}, "invalid"),
    "a time too far away": ("add_task", {"title": "a", "due_at": "9999-12-31T23:59:59-10:00"}, "invalid"),
    "a stale version": ("update_task", {"task_id": "{mine}", "title": "b", "version": 7}, "stale-version"),
    "no title any more": ("update_task", {"task_id": "{mine}", "title": None}, "invalid"),
    "another's task": ("update_task", {"task_id": "{theirs}", "title": "mine now"}, "not-found"),
    "a cursor that is none": ("list_tasks", {"cursor": "nonsense"}, "invalid"),
}


@pytest.mark.parametrize(("tool", "arguments", "code"), REFUSED.values(), ids=REFUSED)
async def test_what_is_refused_is_refused_in_the_same_words(
    service: Service, ada: ApiUser, wires: dict[str, Ask], tool: str, arguments: Answer, code: str
) -> None:
    mine, theirs = await ada.create("tasks", title="a"), await service.user().create("tasks", title="a")
    ids = {"{mine}": mine["id"], "{theirs}": theirs["id"]}
    given = {name: ids.get(value, value) if isinstance(value, str) else value for name, value in arguments.items()}
    told = {wire: await wires[wire](tool, given) for wire in WIRES}

    assert told["rest"]["code"] == code
    assert told["mcp"] == told["chat"] == told["rest"]
    assert await ada.list_items("tasks") == [mine]


async def test_who_is_not_let_in_is_told_so_by_the_same_word(ada: ApiUser) -> None:
    stranger = ApiUser(ada.user_id, "not-a-token", ada.client)
    refused = await stranger.get("tasks")
    at_mcp = await ada.client.post("/mcp", json={}, headers={"authorization": "Bearer not-a-token"})

    assert (refused.status_code, at_mcp.status_code) == (401, 401)
    assert at_mcp.json()["error"]["message"] == f"{refused.json()['code']}: {refused.json()['detail']}"
