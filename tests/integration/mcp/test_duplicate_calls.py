"""A call that comes again under its own id: one effect, and the first answer."""

from typing import Any, cast

import pytest
from mcp_types import RequestParamsMeta

from latchkey.application.artifacts import list_artifacts
from latchkey.application.tasks import list_tasks
from latchkey.domain.credentials import Grant
from tests.integration.mcp.jsonrpc import message, post
from tests.integration.mcp.mcp_service import ME, McpService, OpenClient
from tests.integration.mcp.test_tool_calls import ToolClient, text_of

NAMES = ["latchkey/callId", "claudecode/toolUseId"]
PLAN = {"title": 'The "plan" | one', "content_markdown": "# Plan"}
EVERYTHING = list(Grant)


def named(id: str, name: str = NAMES[0]) -> RequestParamsMeta:
    """What a caller sends beside the arguments."""
    meta: dict[str, Any] = {name: id}
    return cast("RequestParamsMeta", meta)


@pytest.mark.parametrize("name", NAMES)
async def test_a_repeated_call_has_one_effect_and_the_first_answer(
    service: McpService, open_client: OpenClient, name: str
) -> None:
    """Also the text that clients look for in a saved document's answer."""
    turn = await service.turn(*EVERYTHING)
    async with open_client(service, turn.secret) as client:
        first, again = [await client.call_tool("save_artifact", PLAN, meta=named("toolu_1", name)) for _ in range(2)]
        other = await client.call_tool("save_artifact", PLAN, meta=named("toolu_2", name))
    kept = await service.dispatcher.call(ME, list_artifacts)

    assert text_of(again.content) == text_of(first.content)
    assert text_of(first.content).startswith("ARTIFACT_CREATED:")
    assert (again.structured_content, again.is_error) == (first.structured_content, False)
    assert {str(one.id) for one in kept.items} == {one.structured_content["id"] for one in (first, other)}
    assert len(await service.tool_calls_of(turn)) == 2


async def test_a_repeated_failure_is_the_first_failure(service: McpService, open_client: OpenClient) -> None:
    """Though the call would work by now."""
    turn = await service.turn(*EVERYTHING)
    async with open_client(service, turn.secret) as client:
        assistant = ToolClient(client)
        bad = {"title": "", "content_markdown": "# Plan"}
        first, again = [await client.call_tool("save_artifact", bad, meta=named("1")) for _ in range(2)]
        listed = await assistant.ask("list_artifacts")

    assert first.is_error
    assert text_of(first.content) == text_of(again.content)
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
async def test_another_call_under_the_same_id_is_a_mistake_without_effect(
    service: McpService, open_client: OpenClient, tool: str, arguments: dict[str, Any]
) -> None:
    turn = await service.turn(*EVERYTHING)
    async with open_client(service, turn.secret) as client:
        await client.call_tool("save_artifact", PLAN, meta=named("1"))
        other = await client.call_tool(tool, arguments, meta=named("1"))
    artifacts = await service.dispatcher.call(ME, list_artifacts)

    assert other.is_error
    assert '"conflict"' in text_of(other.content)
    assert len(artifacts.items) == 1
    assert (await service.dispatcher.call(ME, list_tasks)).items == []
    assert len(await service.tool_calls_of(turn)) == 1


async def test_an_id_is_one_turns_own(service: McpService, open_client: OpenClient) -> None:
    """Another turn's call under it is another call, and so is everyone's who has no turn."""
    for _ in range(2):
        turn = await service.turn(*EVERYTHING)
        async with open_client(service, turn.secret) as client:
            await client.call_tool("save_artifact", PLAN, meta=named("1"))
    async with open_client(service, await service.secret(Grant.ARTIFACTS_WRITE)) as client:
        for _ in range(2):
            await client.call_tool("save_artifact", PLAN, meta=named("1"))

    assert len((await service.dispatcher.call(ME, list_artifacts)).items) == 4


@pytest.mark.parametrize("id", ["", "x" * 256, "a\x00b", 7, ["1"], {"id": "1"}, True], ids=repr)
@pytest.mark.parametrize("name", NAMES)
async def test_an_id_that_is_none_is_refused(service: McpService, protocol: str, name: str, id: Any) -> None:
    turn = await service.turn(*EVERYTHING)
    sent = message(protocol, "tools/call", {"name": "save_artifact", "arguments": PLAN, "_meta": {name: id}})
    async with service.http() as http:
        answer = await post(http, protocol, sent, turn.secret.text)

    assert answer.json()["error"]["code"] == -32602
    assert name in answer.json()["error"]["message"]
    assert (await service.dispatcher.call(ME, list_artifacts)).items == []
