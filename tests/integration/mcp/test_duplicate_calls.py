"""Duplicate calls under the same call id: one effect, and the first result again (idempotency)."""

from typing import Any, cast

import pytest
from mcp_types import RequestParamsMeta

from latchkey.application.artifacts import list_artifacts
from latchkey.application.tasks import list_tasks
from latchkey.domain.credentials import ARTIFACTS_WRITE
from tests.integration.mcp.jsonrpc import message, post
from tests.integration.mcp.mcp_service import ME, McpService, OpenClient
from tests.integration.mcp.test_tool_calls import ToolClient, text_of
from tests.support.tools import ALL_GRANTS

KEYS = ["latchkey/callId", "claudecode/toolUseId"]
PLAN = {"title": 'The "plan" | one', "content_markdown": "# Plan"}


def call_id(id: str, key: str = KEYS[0]) -> RequestParamsMeta:
    """Return the `_meta` of a call with this id."""
    meta: dict[str, Any] = {key: id}
    return cast("RequestParamsMeta", meta)


@pytest.mark.parametrize("key", KEYS)
async def test_duplicate_call_has_one_effect_and_returns_the_first_result(
    service: McpService, open_client: OpenClient, key: str
) -> None:
    """Including the marker in the text of a saved artifact."""
    turn = await service.turn(*ALL_GRANTS)
    async with open_client(service, turn.secret) as client:
        first, duplicate = [
            await client.call_tool("save_artifact", PLAN, meta=call_id("toolu_1", key)) for _ in range(2)
        ]
        other = await client.call_tool("save_artifact", PLAN, meta=call_id("toolu_2", key))
    saved = await service.dispatcher.call(ME, list_artifacts)

    assert text_of(duplicate.content) == text_of(first.content)
    assert text_of(first.content).startswith("ARTIFACT_CREATED:")
    assert (duplicate.structured_content, duplicate.is_error) == (first.structured_content, False)
    assert {str(item.id) for item in saved.items} == {result.structured_content["id"] for result in (first, other)}
    assert len(await service.tool_calls_of(turn)) == 2


async def test_duplicate_of_failed_call_returns_the_first_error(service: McpService, open_client: OpenClient) -> None:
    """Even if the call would succeed now."""
    turn = await service.turn(*ALL_GRANTS)
    async with open_client(service, turn.secret) as client:
        tools = ToolClient(client)
        bad = {"title": "", "content_markdown": "# Plan"}
        first, duplicate = [await client.call_tool("save_artifact", bad, meta=call_id("1")) for _ in range(2)]
        listed = await tools.call("list_artifacts")

    assert first.is_error
    assert text_of(first.content) == text_of(duplicate.content)
    assert listed["items"] == []


@pytest.mark.parametrize(
    ("tool", "arguments"),
    [
        ("save_artifact", {**PLAN, "title": "Another plan"}),
        ("save_artifact", {**PLAN, "user_id": "you"}),
        ("save_artifact", {}),
        ("add_task", {"title": "Buy milk"}),
        ("add_task", PLAN),
    ],
    ids=["another title", "one more argument", "no arguments", "another call", "another tool"],
)
async def test_different_call_with_the_same_id_is_a_conflict_without_effect(
    service: McpService, open_client: OpenClient, tool: str, arguments: dict[str, Any]
) -> None:
    turn = await service.turn(*ALL_GRANTS)
    async with open_client(service, turn.secret) as client:
        await client.call_tool("save_artifact", PLAN, meta=call_id("1"))
        other = await client.call_tool(tool, arguments, meta=call_id("1"))
    artifacts = await service.dispatcher.call(ME, list_artifacts)

    assert other.is_error
    assert '"conflict"' in text_of(other.content)
    assert len(artifacts.items) == 1
    assert (await service.dispatcher.call(ME, list_tasks)).items == []
    assert len(await service.tool_calls_of(turn)) == 1


async def test_call_id_is_scoped_to_its_turn(service: McpService, open_client: OpenClient) -> None:
    """The same id in another turn, or without a turn, is another call."""
    for _ in range(2):
        turn = await service.turn(*ALL_GRANTS)
        async with open_client(service, turn.secret) as client:
            await client.call_tool("save_artifact", PLAN, meta=call_id("1"))
    async with open_client(service, await service.secret(ARTIFACTS_WRITE)) as client:
        await client.call_tool("save_artifact", PLAN, meta=call_id("1"))

    assert len((await service.dispatcher.call(ME, list_artifacts)).items) == 3


@pytest.mark.parametrize("key", KEYS)
async def test_duplicate_call_outside_a_turn_has_one_effect(
    service: McpService, open_client: OpenClient, key: str
) -> None:
    """Each context token has ids of its own. Another call with the same id is an error."""
    for secret in [await service.secret(*ALL_GRANTS) for _ in range(2)]:
        async with open_client(service, secret) as client:
            first, duplicate = [await client.call_tool("save_artifact", PLAN, meta=call_id("1", key)) for _ in range(2)]
            others = [
                await client.call_tool("save_artifact", {**PLAN, "title": "Another"}, meta=call_id("1", key)),
                await client.call_tool("add_task", {"title": "Buy milk"}, meta=call_id("1", key)),
            ]
        assert text_of(duplicate.content) == text_of(first.content)
        assert duplicate.structured_content == first.structured_content
        assert [other.is_error and '"conflict"' in text_of(other.content) for other in others] == [True, True]

    assert len((await service.dispatcher.call(ME, list_artifacts)).items) == 2
    assert (await service.dispatcher.call(ME, list_tasks)).items == []


@pytest.mark.parametrize("id", ["", "x" * 256, "a\x00b", 7, ["1"], {"id": "1"}, True], ids=repr)
@pytest.mark.parametrize("key", KEYS)
async def test_invalid_call_id_is_refused(service: McpService, protocol: str, key: str, id: Any) -> None:
    turn = await service.turn(*ALL_GRANTS)
    request = message(protocol, "tools/call", {"name": "save_artifact", "arguments": PLAN, "_meta": {key: id}})
    async with service.http() as http:
        response = await post(http, protocol, request, turn.secret.text)

    assert response.json()["error"]["code"] == -32602
    assert key in response.json()["error"]["message"]
    assert (await service.dispatcher.call(ME, list_artifacts)).items == []
