"""A document is the same whoever wrote it: over REST, by a tool or in a turn, and read as any of what shows it."""

import json
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from mcp_types import TextResourceContents

from tests.contract.test_parity import content
from tests.integration.http.test_unicode_text import TEXTS
from tests.support.service import ApiUser, Service

pytestmark = pytest.mark.asyncio(loop_scope="session")

Answer = dict[str, Any]
Write = Callable[[Service, ApiUser, Answer], Awaitable[str]]
"""Writes a document, or the next version of one, and gives its id."""


async def over_rest(_: Service, person: ApiUser, given: Answer) -> str:
    body = dict(given)
    if (id := body.pop("artifact_id", None)) is None:
        return str((await person.create("artifacts", **body))["id"])
    return str((await person.put(f"artifacts/{id}", json=body)).json()["id"])


async def by_a_tool(service: Service, person: ApiUser, given: Answer) -> str:
    async with service.mcp_client(person.token) as client:
        saved: Any = (await client.call_tool("save_artifact", given)).structured_content
    return str(saved["id"])


async def in_a_turn(_: Service, person: ApiUser, given: Answer) -> str:
    answer = await person.chat(f"/save_artifact {json.dumps(given)}", artifact_generation=True)
    return str(answer["artifacts"][0]["id"])


WRITERS: dict[str, Write] = {"REST": over_rest, "tool": by_a_tool, "turn": in_a_turn}
REVISERS = {"REST": over_rest, "tool": by_a_tool}


async def read_everywhere(service: Service, person: ApiUser, id: str) -> tuple[list[Answer], list[str]]:
    """The document as the wires show it, and its content as those show it that show nothing else."""
    shown = await person.get(f"artifacts/{id}")
    file = await person.get(f"artifacts/{id}/content")
    async with service.mcp_client(person.token) as client:
        told = content(await client.call_tool("get_artifact", {"artifact_id": id}))
        (resource,) = (await client.read_resource(f"latchkey://artifacts/{id}")).contents
    assert isinstance(resource, TextResourceContents)
    assert resource.mime_type == "text/markdown"
    return [shown.json(), told], [file.content.decode(), resource.text]


@pytest.mark.parametrize("write", WRITERS.values(), ids=WRITERS)
@pytest.mark.parametrize("text", TEXTS.values(), ids=TEXTS)
async def test_a_document_is_the_same_on_every_wire(service: Service, ada: ApiUser, write: Write, text: str) -> None:
    id = await write(service, ada, {"title": text, "content_markdown": text})
    (shown, told), contents = await read_everywhere(service, ada, id)

    assert shown == told
    assert (shown["title"], shown["content_markdown"], shown["artifact_type"]) == (text, text, "generated_file")
    assert (shown["turn_id"] is None) == (write is not in_a_turn)
    assert contents == [text, text]


@pytest.mark.parametrize("revise", REVISERS.values(), ids=REVISERS)
@pytest.mark.parametrize("write", WRITERS.values(), ids=WRITERS)
async def test_a_version_that_one_wire_made_is_read_over_another(
    service: Service, ada: ApiUser, write: Write, revise: Write
) -> None:
    id = await write(service, ada, {"title": "Plan", "content_markdown": "1"})
    first = (await ada.get(f"artifacts/{id}")).json()
    assert await revise(service, ada, {"artifact_id": id, "title": "Plan B", "content_markdown": "2"}) == id
    (shown, told), contents = await read_everywhere(service, ada, id)
    async with service.mcp_client(ada.token) as client:
        earlier = content(await client.call_tool("get_artifact", {"artifact_id": id, "version": 1}))
        listed = content(await client.call_tool("list_artifacts", {}))

    assert shown == told
    assert (shown["title"], shown["version"], contents) == ("Plan B", 2, ["2", "2"])
    assert earlier == first
    assert listed == (await ada.get("artifacts")).json()
    assert [item["id"] for item in listed["items"]] == [id]


async def test_what_is_refused_is_refused_in_the_same_words(service: Service, ada: ApiUser, bob: ApiUser) -> None:
    mine = (await ada.create("artifacts", title="Plan", content_markdown="1"))["id"]
    theirs = (await bob.create("artifacts", title="Plan", content_markdown="1"))["id"]
    too_large = "é" * (512 * 1024) + "a"
    refused = [
        (await ada.put(f"artifacts/{theirs}", json={"content_markdown": "2"})),
        (await ada.put(f"artifacts/{mine}", json={"content_markdown": "2"}, headers={"if-match": '"7"'})),
        (await ada.put(f"artifacts/{mine}", json={"content_markdown": too_large})),
    ]
    async with service.mcp_client(ada.token) as client:
        told = [
            content(await client.call_tool("save_artifact", {"title": "Plan", **arguments}))
            for arguments in (
                {"artifact_id": theirs, "content_markdown": "2"},
                {"artifact_id": mine, "content_markdown": "2", "version": 7},
                {"artifact_id": mine, "content_markdown": too_large},
            )
        ]

    assert told == [{name: one.json()[name] for name in ("code", "detail")} for one in refused]
    assert [one["code"] for one in told] == ["not-found", "stale-version", "too-large"]
    assert len(await ada.list_items(f"artifacts/{mine}/versions")) == 1
