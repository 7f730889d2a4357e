"""Artifacts written over REST, with an MCP tool or in a turn: the same data wherever they are read."""

import json
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from mcp_types import TextResourceContents

from tests.contract.test_task_parity import content_of
from tests.integration.http.test_unicode_text import TEXTS
from tests.support.service import ApiUser, Service

pytestmark = pytest.mark.asyncio(loop_scope="session")

Json = dict[str, Any]
Write = Callable[[Service, ApiUser, Json], Awaitable[str]]
"""Writes an artifact, or a new version of the artifact with `artifact_id`. Returns its id."""


async def over_rest(_: Service, user: ApiUser, params: Json) -> str:
    body = dict(params)
    if (id := body.pop("artifact_id", None)) is None:
        return str((await user.create("artifacts", **body))["id"])
    return str((await user.put(f"artifacts/{id}", json=body)).json()["id"])


async def with_a_tool(service: Service, user: ApiUser, params: Json) -> str:
    async with service.mcp_client(user.token) as client:
        saved: Any = (await client.call_tool("save_artifact", params)).structured_content
    return str(saved["id"])


async def in_a_turn(_: Service, user: ApiUser, params: Json) -> str:
    answer = await user.chat(f"/save_artifact {json.dumps(params)}", artifact_generation=True)
    return str(answer["artifacts"][0]["id"])


WRITERS: dict[str, Write] = {"REST": over_rest, "tool": with_a_tool, "turn": in_a_turn}
REVISERS = {"REST": over_rest, "tool": with_a_tool}


async def read_everywhere(service: Service, user: ApiUser, id: str) -> tuple[list[Json], list[str]]:
    """Return the artifact as REST and MCP show it, and its content as the download and the resource show it."""
    over_rest = await user.get(f"artifacts/{id}")
    file = await user.get(f"artifacts/{id}/content")
    async with service.mcp_client(user.token) as client:
        over_mcp = content_of(await client.call_tool("get_artifact", {"artifact_id": id}))
        (resource,) = (await client.read_resource(f"latchkey://artifacts/{id}")).contents
    assert isinstance(resource, TextResourceContents)
    assert resource.mime_type == "text/markdown"
    return [over_rest.json(), over_mcp], [file.content.decode(), resource.text]


@pytest.mark.parametrize("write", WRITERS.values(), ids=WRITERS)
@pytest.mark.parametrize("text", TEXTS.values(), ids=TEXTS)
async def test_artifact_reads_the_same_over_all_interfaces(
    service: Service, ada: ApiUser, write: Write, text: str
) -> None:
    id = await write(service, ada, {"title": text, "content_markdown": text})
    (over_rest, over_mcp), contents = await read_everywhere(service, ada, id)

    assert over_rest == over_mcp
    assert (over_rest["title"], over_rest["content_markdown"], over_rest["artifact_type"]) == (
        text,
        text,
        "generated_file",
    )
    assert (over_rest["turn_id"] is None) == (write is not in_a_turn)
    assert contents == [text, text]


@pytest.mark.parametrize("revise", REVISERS.values(), ids=REVISERS)
@pytest.mark.parametrize("write", WRITERS.values(), ids=WRITERS)
async def test_artifact_version_written_over_one_interface_reads_the_same_over_all(
    service: Service, ada: ApiUser, write: Write, revise: Write
) -> None:
    id = await write(service, ada, {"title": "Plan", "content_markdown": "1"})
    first = (await ada.get(f"artifacts/{id}")).json()
    assert await revise(service, ada, {"artifact_id": id, "title": "Plan B", "content_markdown": "2"}) == id
    (over_rest, over_mcp), contents = await read_everywhere(service, ada, id)
    async with service.mcp_client(ada.token) as client:
        earlier = content_of(await client.call_tool("get_artifact", {"artifact_id": id, "version": 1}))
        listed = content_of(await client.call_tool("list_artifacts", {}))

    assert over_rest == over_mcp
    assert (over_rest["title"], over_rest["version"], contents) == ("Plan B", 2, ["2", "2"])
    assert earlier == first
    assert listed == (await ada.get("artifacts")).json()
    assert [item["id"] for item in listed["items"]] == [id]


async def test_artifact_error_has_the_same_code_and_text_over_rest_and_mcp(
    service: Service, ada: ApiUser, bob: ApiUser
) -> None:
    mine = (await ada.create("artifacts", title="Plan", content_markdown="1"))["id"]
    theirs = (await bob.create("artifacts", title="Plan", content_markdown="1"))["id"]
    too_large = "é" * (512 * 1024) + "a"
    responses = [
        (await ada.put(f"artifacts/{theirs}", json={"content_markdown": "2"})),
        (await ada.put(f"artifacts/{mine}", json={"content_markdown": "2"}, headers={"if-match": '"7"'})),
        (await ada.put(f"artifacts/{mine}", json={"content_markdown": too_large})),
    ]
    async with service.mcp_client(ada.token) as client:
        errors = [
            content_of(await client.call_tool("save_artifact", {"title": "Plan", **arguments}))
            for arguments in (
                {"artifact_id": theirs, "content_markdown": "2"},
                {"artifact_id": mine, "content_markdown": "2", "version": 7},
                {"artifact_id": mine, "content_markdown": too_large},
            )
        ]

    assert errors == [{name: response.json()[name] for name in ("code", "detail")} for response in responses]
    assert [error["code"] for error in errors] == ["not-found", "stale-version", "too-large"]
    assert len(await ada.list_items(f"artifacts/{mine}/versions")) == 1
