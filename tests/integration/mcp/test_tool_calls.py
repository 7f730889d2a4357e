"""What the tools do, by every way in."""

import json
from typing import Any

import jsonschema
from mcp import Client
from mcp.types import TextContent

from tests.integration.mcp.mcp_service import ME, YOU, McpService, OpenClient

NOBODYS = "0190a7c0-0000-7000-8000-000000000000"

BAD_ARGUMENTS: list[tuple[str, dict[str, Any], str]] = [
    ("add_task", {}, "title"),
    ("add_task", {"title": ""}, "$.title"),
    ("add_task", {"title": "   "}, "$.title"),
    ("add_task", {"title": "x" * 201}, "$.title"),
    ("add_task", {"title": 5}, "$.title"),
    ("add_task", {"title": None}, "$.title"),
    ("add_task", {"title": "a\x00b"}, "$.title"),
    ("add_task", {"title": "x", "description": "\x00"}, "$.description"),
    ("add_task", {"title": "x", "due_at": "tomorrow"}, "$.due_at"),
    ("add_task", {"title": "x", "due_at": "2027-01-02T03:04:05"}, "$.due_at"),
    ("add_task", {"title": "x", "user_id": "you"}, "user_id"),
    ("add_task", {"title": "x", "status": "completed"}, "status"),
    ("list_tasks", {"limit": 0}, "$.limit"),
    ("list_tasks", {"limit": 201}, "$.limit"),
    ("list_tasks", {"limit": 10**40}, "$.limit"),
    ("list_tasks", {"limit": "5"}, "$.limit"),
    ("list_tasks", {"limit": True}, "$.limit"),
    ("list_tasks", {"limit": None}, "$.limit"),
    ("list_tasks", {"status": "done"}, "$.status"),
    ("list_tasks", {"cursor": "nonsense"}, "cursor"),
    ("complete_task", {"task_id": "7"}, "$.task_id"),
    ("complete_task", {"task_id": NOBODYS, "version": 1}, "version"),
    ("update_task", {"title": "x"}, "task_id"),
    ("update_task", {"task_id": NOBODYS, "title": None}, "$.title"),
    ("update_task", {"task_id": NOBODYS, "status": None}, "$.status"),
    ("update_task", {"task_id": NOBODYS, "version": 0}, "$.version"),
]


class ToolClient:
    """A client that holds every answer against the schema of its tool."""

    def __init__(self, client: Client) -> None:
        self._client = client

    async def ask(self, tool: str, **arguments: Any) -> Any:
        """The structured content of an answer, of which the text is the JSON."""
        schemas = {one.name: one.output_schema for one in (await self._client.list_tools()).tools}
        result = await self._client.call_tool(tool, arguments)
        assert not result.is_error, result.content
        jsonschema.validate(result.structured_content, schemas[tool] or {}, jsonschema.Draft202012Validator)
        assert json.loads(text_of(result.content)) == result.structured_content
        return result.structured_content

    async def fail(self, tool: str, **arguments: Any) -> Any:
        """The tool error that a call is answered with."""
        result = await self._client.call_tool(tool, arguments)
        assert result.is_error
        assert result.structured_content is None
        return json.loads(text_of(result.content))


def text_of(content: Any) -> str:
    (block,) = content
    assert isinstance(block, TextContent)
    return block.text


async def test_a_task_is_added_changed_completed_and_deleted(service: McpService, open_client: OpenClient) -> None:
    async with open_client(service, await service.secret()) as client:
        assistant = ToolClient(client)
        task = await assistant.ask(
            "add_task", title="Buy milk", description="Two litres", due_at="2027-01-02T03:04:05Z"
        )
        changed = await assistant.ask("update_task", task_id=task["id"], title="Buy oat milk", version=1)
        completed = await assistant.ask("complete_task", task_id=task["id"])
        deleted = await assistant.ask("delete_task", task_id=task["id"])
        left = await assistant.ask("list_tasks")

    assert (task["title"], task["status"], task["due_at"]) == ("Buy milk", "pending", "2027-01-02T03:04:05Z")
    assert (changed["title"], changed["description"], changed["version"]) == ("Buy oat milk", "Two litres", 2)
    assert completed["status"] == "completed"
    assert deleted == completed
    assert left == {"items": [], "next_cursor": None}


async def test_what_is_left_out_stays_and_null_clears(service: McpService, open_client: OpenClient) -> None:
    async with open_client(service, await service.secret()) as client:
        assistant = ToolClient(client)
        task = await assistant.ask(
            "add_task", title="Buy milk", description="Two litres", due_at="2027-01-02T03:04:05Z"
        )
        untouched = await assistant.ask("update_task", task_id=task["id"])
        cleared = await assistant.ask("update_task", task_id=task["id"], description=None)

    assert untouched == task
    assert (cleared["description"], cleared["due_at"]) == (None, task["due_at"])


async def test_completing_twice_changes_nothing(service: McpService, open_client: OpenClient) -> None:
    async with open_client(service, await service.secret()) as client:
        assistant = ToolClient(client)
        task = await assistant.ask("add_task", title="Buy milk")
        once = await assistant.ask("complete_task", task_id=task["id"])
        twice = await assistant.ask("complete_task", task_id=task["id"])

    assert twice == once


async def test_a_list_is_read_page_by_page_newest_first(service: McpService, open_client: OpenClient) -> None:
    async with open_client(service, await service.secret()) as client:
        assistant = ToolClient(client)
        for title in ("one", "two", "three"):
            await assistant.ask("add_task", title=title)
        first = await assistant.ask("list_tasks", limit=2)
        rest = await assistant.ask("list_tasks", limit=2, cursor=first["next_cursor"])

    assert [task["title"] for task in first["items"] + rest["items"]] == ["three", "two", "one"]
    assert rest["next_cursor"] is None


async def test_a_stale_version_is_told_and_changes_nothing(service: McpService, open_client: OpenClient) -> None:
    async with open_client(service, await service.secret()) as client:
        assistant = ToolClient(client)
        task = await assistant.ask("add_task", title="Buy milk")
        await assistant.ask("update_task", task_id=task["id"], title="Buy oat milk")
        error = await assistant.fail("update_task", task_id=task["id"], title="Buy soy milk", version=1)
        (left,) = (await assistant.ask("list_tasks"))["items"]

    assert error["code"] == "stale-version"
    assert left["title"] == "Buy oat milk"


async def test_somebody_elses_task_is_answered_like_one_that_is_not_there(
    service: McpService, open_client: OpenClient
) -> None:
    async with open_client(service, await service.secret(owner=YOU)) as client:
        yours = await ToolClient(client).ask("add_task", title="Mine, not yours")
    async with open_client(service, await service.secret(owner=ME)) as client:
        assistant = ToolClient(client)
        seen = await assistant.ask("list_tasks")
        answers = [
            [await assistant.fail(tool, task_id=task_id) for tool in ("complete_task", "delete_task", "update_task")]
            for task_id in (yours["id"], NOBODYS)
        ]
    async with open_client(service, await service.secret(owner=YOU)) as client:
        left = await ToolClient(client).ask("list_tasks")

    assert seen["items"] == []
    assert answers[0] == answers[1]
    assert answers[0][0]["code"] == "not-found"
    assert left["items"] == [yours]


async def test_bad_arguments_are_errors_that_say_where(service: McpService, open_client: OpenClient) -> None:
    """Each of them names what is wrong, and none has any effect."""
    async with open_client(service, await service.secret()) as client:
        assistant = ToolClient(client)
        errors = [await assistant.fail(tool, **arguments) for tool, arguments, _ in BAD_ARGUMENTS]
        left = await assistant.ask("list_tasks")
    details = [error["detail"] for error in errors]

    assert {error["code"] for error in errors} == {"invalid"}
    assert [text for text, (_, _, where) in zip(details, BAD_ARGUMENTS, strict=True) if where not in text] == []
    assert left["items"] == []


async def test_a_call_without_arguments_is_one_with_none(service: McpService, open_client: OpenClient) -> None:
    async with open_client(service, await service.secret()) as client:
        result = await client.call_tool("list_tasks")

    assert result.structured_content == {"items": [], "next_cursor": None}
