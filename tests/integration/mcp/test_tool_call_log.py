"""The recorded tool calls of a turn."""

import msgspec
import pytest

from latchkey.domain.tool_call import ToolCall
from tests.integration.mcp.mcp_service import McpService, OpenClient, in_process


def row(call: ToolCall) -> tuple[object, ...]:
    result = msgspec.json.decode(call.result)
    return call.name, msgspec.json.decode(call.arguments), call.is_error, result.get("code") or result.get("title")


async def test_tool_calls_of_turn_are_recorded_in_order(service: McpService, open_client: OpenClient) -> None:
    """A successful call, a failed call, and a call with invalid arguments."""
    turn, unknown = await service.turn(), {"task_id": "0190a7c0-0000-7000-8000-000000000000"}
    async with open_client(service, turn.secret) as client:
        added = await client.call_tool("add_task", {"title": "Buy milk"})
        await client.call_tool("complete_task", unknown)
        await client.call_tool("add_task", {"title": 5, "nope": None})
    rows = await service.tool_calls_of(turn)

    assert [row(call) for call in rows] == [
        ("add_task", {"title": "Buy milk"}, False, "Buy milk"),
        ("complete_task", unknown, True, "not-found"),
        ("add_task", {"title": 5, "nope": None}, True, "invalid"),
    ]
    assert msgspec.json.decode(rows[0].result) == added.structured_content


async def test_task_added_in_turn_belongs_to_its_conversation(service: McpService) -> None:
    turn = await service.turn()
    async with in_process(service, turn.secret) as client:
        task = (await client.call_tool("add_task", {"title": "Buy milk"})).structured_content

    assert task["conversation_id"] == str(turn.turn.conversation_id)


async def test_tool_call_that_only_reads_is_recorded(service: McpService, open_client: OpenClient) -> None:
    turn = await service.turn()
    async with open_client(service, turn.secret) as client:
        await client.call_tool("list_tasks")
    (call,) = await service.tool_calls_of(turn)

    assert (call.name, bytes(call.arguments)) == ("list_tasks", b"{}")
    assert msgspec.json.decode(call.result) == {"items": [], "next_cursor": None}


@pytest.mark.parametrize(
    ("text", "recorded"),
    [("a\ud800b", "a\ufffdb"), ("a\x00b", "a\x00b"), ("\U0001f600\udfff", "\U0001f600\ufffd")],
    ids=["surrogate", "NUL", "emoji"],
)
async def test_tool_call_with_text_that_cannot_be_stored_is_refused_and_recorded(
    service: McpService, text: str, recorded: str
) -> None:
    """Each lone surrogate is recorded as U+FFFD."""
    turn = await service.turn()
    async with in_process(service, turn.secret) as client:
        by_value = await client.call_tool("add_task", {"title": text})
        by_name = await client.call_tool("add_task", {"title": "x", text: 1})
    rows = await service.tool_calls_of(turn)

    assert (by_value.is_error, by_name.is_error) == (True, True)
    assert msgspec.json.decode(rows[0].arguments) == {"title": recorded}
    assert [call.is_error for call in rows] == [True, True]


async def test_call_of_unknown_tool_is_not_recorded(service: McpService) -> None:
    turn = await service.turn()
    async with service.http() as http:
        http.headers["authorization"] = f"Bearer {turn.secret.text}"
        await http.post("/", json={"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": {"name": "nope"}})

    assert await service.tool_calls_of(turn) == []
