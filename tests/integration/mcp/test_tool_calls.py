"""Calls of the task tools, by every kind of client."""

import json
from typing import Any

import jsonschema
from mcp import Client
from mcp.types import TextContent

from latchkey.application.tasks import add_task
from latchkey.domain.task import NewTask
from latchkey.infrastructure.agents.toolset import MAX_RESULT_CHARS
from latchkey.interfaces.mcp.principal import connect
from tests.integration.mcp.mcp_service import ME, YOU, McpService, OpenClient

UNKNOWN_ID = "0190a7c0-0000-7000-8000-000000000000"

INVALID_ARGUMENTS: list[tuple[str, dict[str, Any], str]] = [
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
    ("complete_task", {"task_id": UNKNOWN_ID, "version": 1}, "version"),
    ("update_task", {"title": "x"}, "task_id"),
    ("update_task", {"task_id": UNKNOWN_ID, "title": None}, "$.title"),
    ("update_task", {"task_id": UNKNOWN_ID, "status": None}, "$.status"),
    ("update_task", {"task_id": UNKNOWN_ID, "version": 0}, "$.version"),
]


class ToolClient:
    """A client that validates every result against the output schema of its tool."""

    def __init__(self, client: Client) -> None:
        self._client = client

    async def call(self, name: str, **arguments: Any) -> Any:
        """Call a tool and return its structured content, which the text repeats as JSON."""
        schemas = {tool.name: tool.output_schema for tool in (await self._client.list_tools()).tools}
        result = await self._client.call_tool(name, arguments)
        assert not result.is_error, result.content
        jsonschema.validate(result.structured_content, schemas[name] or {}, jsonschema.Draft202012Validator)
        assert json.loads(text_of(result.content)) == result.structured_content
        return result.structured_content

    async def call_error(self, name: str, **arguments: Any) -> Any:
        """Call a tool that fails and return its tool error."""
        result = await self._client.call_tool(name, arguments)
        assert result.is_error
        assert result.structured_content is None
        return json.loads(text_of(result.content))


def text_of(content: Any) -> str:
    (block,) = content
    assert isinstance(block, TextContent)
    return block.text


async def test_task_is_added_updated_completed_and_deleted(service: McpService, open_client: OpenClient) -> None:
    async with open_client(service, await service.secret()) as client:
        tools = ToolClient(client)
        task = await tools.call("add_task", title="Buy milk", description="Two litres", due_at="2027-01-02T03:04:05Z")
        changed = await tools.call("update_task", task_id=task["id"], title="Buy oat milk", version=1)
        completed = await tools.call("complete_task", task_id=task["id"])
        deleted = await tools.call("delete_task", task_id=task["id"])
        remaining = await tools.call("list_tasks")

    assert (task["title"], task["status"], task["due_at"]) == ("Buy milk", "pending", "2027-01-02T03:04:05Z")
    assert (changed["title"], changed["description"], changed["version"]) == ("Buy oat milk", "Two litres", 2)
    assert completed["status"] == "completed"
    assert deleted == completed
    assert remaining == {"items": [], "next_cursor": None}


async def test_update_task_omitted_argument_is_unchanged_and_null_clears(
    service: McpService, open_client: OpenClient
) -> None:
    async with open_client(service, await service.secret()) as client:
        tools = ToolClient(client)
        task = await tools.call("add_task", title="Buy milk", description="Two litres", due_at="2027-01-02T03:04:05Z")
        untouched = await tools.call("update_task", task_id=task["id"])
        cleared = await tools.call("update_task", task_id=task["id"], description=None)

    assert untouched == task
    assert (cleared["description"], cleared["due_at"]) == (None, task["due_at"])


async def test_complete_task_twice_changes_nothing(service: McpService, open_client: OpenClient) -> None:
    async with open_client(service, await service.secret()) as client:
        tools = ToolClient(client)
        task = await tools.call("add_task", title="Buy milk")
        once = await tools.call("complete_task", task_id=task["id"])
        twice = await tools.call("complete_task", task_id=task["id"])

    assert twice == once


async def test_list_tasks_pagination_is_newest_first(service: McpService, open_client: OpenClient) -> None:
    async with open_client(service, await service.secret()) as client:
        tools = ToolClient(client)
        for title in ("one", "two", "three"):
            await tools.call("add_task", title=title)
        first = await tools.call("list_tasks", limit=2)
        rest = await tools.call("list_tasks", limit=2, cursor=first["next_cursor"])

    assert [task["title"] for task in first["items"] + rest["items"]] == ["three", "two", "one"]
    assert rest["next_cursor"] is None


async def test_update_task_with_stale_version_is_an_error_without_effect(
    service: McpService, open_client: OpenClient
) -> None:
    async with open_client(service, await service.secret()) as client:
        tools = ToolClient(client)
        task = await tools.call("add_task", title="Buy milk")
        await tools.call("update_task", task_id=task["id"], title="Buy oat milk")
        error = await tools.call_error("update_task", task_id=task["id"], title="Buy soy milk", version=1)
        (task,) = (await tools.call("list_tasks"))["items"]

    assert error["code"] == "stale-version"
    assert task["title"] == "Buy oat milk"


async def test_task_of_another_user_responds_like_unknown_task_isolation(
    service: McpService, open_client: OpenClient
) -> None:
    async with open_client(service, await service.secret(owner=YOU)) as client:
        other = await ToolClient(client).call("add_task", title="Mine, not other")
    async with open_client(service, await service.secret(owner=ME)) as client:
        tools = ToolClient(client)
        seen = await tools.call("list_tasks")
        errors = [
            [await tools.call_error(tool, task_id=task_id) for tool in ("complete_task", "delete_task", "update_task")]
            for task_id in (other["id"], UNKNOWN_ID)
        ]
    async with open_client(service, await service.secret(owner=YOU)) as client:
        remaining = await ToolClient(client).call("list_tasks")

    assert seen["items"] == []
    assert errors[0] == errors[1]
    assert errors[0][0]["code"] == "not-found"
    assert remaining["items"] == [other]


async def test_invalid_arguments_are_errors_with_the_path_and_without_effect(
    service: McpService, open_client: OpenClient
) -> None:
    async with open_client(service, await service.secret()) as client:
        tools = ToolClient(client)
        errors = [await tools.call_error(name, **arguments) for name, arguments, _ in INVALID_ARGUMENTS]
        remaining = await tools.call("list_tasks")
    details = [error["detail"] for error in errors]

    assert {error["code"] for error in errors} == {"invalid"}
    assert [text for text, (_, _, path) in zip(details, INVALID_ARGUMENTS, strict=True) if path not in text] == []
    assert remaining["items"] == []


async def test_call_without_arguments_is_a_call_with_empty_arguments(
    service: McpService, open_client: OpenClient
) -> None:
    async with open_client(service, await service.secret()) as client:
        result = await client.call_tool("list_tasks")

    assert result.structured_content == {"items": [], "next_cursor": None}


async def test_listing_in_a_turn_has_pages_that_fit_into_what_the_model_is_given(service: McpService) -> None:
    """The cursor continues where the page ends. Pages for other credentials are not shortened."""
    added = [await service.dispatcher.call(ME, add_task, NewTask(f"{n}", "é\n" * 4000)) for n in range(12)]
    turn = await service.turn()
    titles: list[str] = []
    cursor: dict[str, str] = {}
    async with connect(service.server, turn.secret) as client:
        tools = ToolClient(client)
        while True:
            page = await tools.call("list_tasks", **cursor)
            assert len(json.dumps(page, ensure_ascii=False)) <= MAX_RESULT_CHARS
            titles += [task["title"] for task in page["items"]]
            if page["next_cursor"] is None:
                break
            cursor = {"cursor": page["next_cursor"]}
    async with connect(service.server, await service.secret()) as client:
        whole = await ToolClient(client).call("list_tasks")

    assert titles == [task.title for task in reversed(added)]
    assert [task["title"] for task in whole["items"]] == titles


async def test_listing_in_a_turn_has_one_item_at_least(service: McpService) -> None:
    for n in range(2):
        await service.dispatcher.call(ME, add_task, NewTask(f"{n}", "\U0001f95b" * 10_000))
    turn = await service.turn()
    async with connect(service.server, turn.secret) as client:
        tools = ToolClient(client)
        first = await tools.call("list_tasks")
        second = await tools.call("list_tasks", cursor=first["next_cursor"])

    assert [len(first["items"]), len(second["items"]), second["next_cursor"]] == [1, 1, None]
