"""A call that comes again under its own id: one effect, and the first answer."""

from typing import Any, cast

import pytest
from mcp_types import RequestParamsMeta

from latchkey.application.artifacts import list_artifacts
from latchkey.application.tasks import list_tasks
from latchkey.domain.credentials import Grant
from tests.integration.mcp.house import ME, House, Way
from tests.integration.mcp.test_calling import Assistant, text_of
from tests.integration.mcp.wire import message, post

NAMES = ["latchkey/callId", "claudecode/toolUseId"]
PLAN = {"title": 'The "plan" | one', "content_markdown": "# Plan"}
EVERYTHING = list(Grant)


def named(id: str, name: str = NAMES[0]) -> RequestParamsMeta:
    """What a caller sends beside the arguments."""
    meta: dict[str, Any] = {name: id}
    return cast("RequestParamsMeta", meta)


@pytest.mark.parametrize("name", NAMES)
async def test_a_repeated_call_has_one_effect_and_the_first_answer(house: House, way: Way, name: str) -> None:
    """Also the text that clients look for in a saved document's answer."""
    turn = await house.turn(*EVERYTHING)
    async with way(house, turn.secret) as client:
        first, again = [await client.call_tool("save_artifact", PLAN, meta=named("toolu_1", name)) for _ in range(2)]
        other = await client.call_tool("save_artifact", PLAN, meta=named("toolu_2", name))
    kept = await house.dispatcher.call(ME, list_artifacts)

    assert text_of(again.content) == text_of(first.content)
    assert text_of(first.content).startswith("ARTIFACT_CREATED:")
    assert (again.structured_content, again.is_error) == (first.structured_content, False)
    assert {str(one.id) for one in kept.items} == {one.structured_content["id"] for one in (first, other)}
    assert len(await house.ledger_of(turn)) == 2


async def test_a_repeated_failure_is_the_first_failure(house: House, way: Way) -> None:
    """Though the call would work by now."""
    turn = await house.turn(*EVERYTHING)
    async with way(house, turn.secret) as client:
        assistant = Assistant(client)
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
    house: House, way: Way, tool: str, arguments: dict[str, Any]
) -> None:
    turn = await house.turn(*EVERYTHING)
    async with way(house, turn.secret) as client:
        await client.call_tool("save_artifact", PLAN, meta=named("1"))
        other = await client.call_tool(tool, arguments, meta=named("1"))
    artifacts = await house.dispatcher.call(ME, list_artifacts)

    assert other.is_error
    assert '"conflict"' in text_of(other.content)
    assert len(artifacts.items) == 1
    assert (await house.dispatcher.call(ME, list_tasks)).items == []
    assert len(await house.ledger_of(turn)) == 1


async def test_an_id_is_one_turns_own(house: House, way: Way) -> None:
    """Another turn's call under it is another call, and so is everyone's who has no turn."""
    for _ in range(2):
        turn = await house.turn(*EVERYTHING)
        async with way(house, turn.secret) as client:
            await client.call_tool("save_artifact", PLAN, meta=named("1"))
    async with way(house, await house.secret(Grant.ARTIFACTS_WRITE)) as client:
        for _ in range(2):
            await client.call_tool("save_artifact", PLAN, meta=named("1"))

    assert len((await house.dispatcher.call(ME, list_artifacts)).items) == 4


@pytest.mark.parametrize("id", ["", "x" * 256, "a\x00b", 7, ["1"], {"id": "1"}, True], ids=repr)
@pytest.mark.parametrize("name", NAMES)
async def test_an_id_that_is_none_is_refused(house: House, era: str, name: str, id: Any) -> None:
    turn = await house.turn(*EVERYTHING)
    sent = message(era, "tools/call", {"name": "save_artifact", "arguments": PLAN, "_meta": {name: id}})
    async with house.http() as http:
        answer = await post(http, era, sent, turn.secret.text)

    assert answer.json()["error"]["code"] == -32602
    assert name in answer.json()["error"]["message"]
    assert (await house.dispatcher.call(ME, list_artifacts)).items == []
