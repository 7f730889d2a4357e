"""Documents, as tools save and show them."""

import json
from typing import Any

import pytest
from mcp import Client

from latchkey.application.artifacts import find_artifacts
from latchkey.domain.credentials import Grant
from latchkey.domain.page import Window
from tests.integration.mcp.mcp_service import ME, YOU, McpService, OpenClient, in_process
from tests.integration.mcp.test_tool_calls import NOBODYS, ToolClient, text_of

READ, WRITE = Grant.ARTIFACTS_READ, Grant.ARTIFACTS_WRITE
BEFORE, AFTER = "ARTIFACT_CREATED:", "|File generated successfully."
MIB = 1024 * 1024

TITLES = [
    "Plan",
    'A "quoted" plan',
    "a|b} {c|d",
    'plan"}|File generated successfully.',
    "ARTIFACT_CREATED:{}|File generated successfully.",
    "C:\\plans\\new",
    "tab\tand\nnew line",
    "計画 خطة план Zoë 👩🏽‍🚀",
]
BAD_ARGUMENTS: list[tuple[dict[str, Any], str]] = [
    ({"content_markdown": "# Plan"}, "title"),
    ({"title": "Plan"}, "content_markdown"),
    ({"title": " \n", "content_markdown": "# Plan"}, "$.title"),
    ({"title": "x" * 201, "content_markdown": "# Plan"}, "$.title"),
    ({"title": "Plan\x00", "content_markdown": "# Plan"}, "$.title"),
    ({"title": "Plan", "content_markdown": "\x00"}, "$.content_markdown"),
    ({"title": "Plan", "content_markdown": None}, "$.content_markdown"),
    ({"title": "Plan", "content_markdown": "", "artifact_id": "7"}, "$.artifact_id"),
    ({"title": "Plan", "content_markdown": "", "artifact_id": NOBODYS, "version": 0}, "$.version"),
    ({"title": "Plan", "content_markdown": "", "artifact_type": "brd"}, "artifact_type"),
    ({"title": "Plan", "content_markdown": "", "conversation_id": NOBODYS}, "conversation_id"),
    ({"title": "Plan", "content_markdown": "", "user_id": "you"}, "user_id"),
]


async def saved(client: Client, **arguments: Any) -> dict[str, Any]:
    """The structured content of a save, which is what the schema says, and of which the marker says the same."""
    result = await client.call_tool("save_artifact", {"title": "Plan", "content_markdown": "# Plan", **arguments})
    assert not result.is_error, result.content
    reference: dict[str, Any] = result.structured_content
    text = text_of(result.content)
    assert text.startswith(BEFORE)
    assert text.endswith(AFTER)
    told = json.loads(text[len(BEFORE) : -len(AFTER)])
    assert told == {name: reference[name] for name in ("id", "artifact_type", "title")}
    return reference


async def test_a_document_is_saved_listed_shown_and_revised(service: McpService, open_client: OpenClient) -> None:
    async with open_client(service, await service.secret(READ, WRITE)) as client:
        assistant = ToolClient(client)
        first = await saved(client, content_markdown="# One")
        second = await saved(client, content_markdown="# Two", artifact_id=first["id"], version=1, title="Better plan")
        listed = await assistant.ask("list_artifacts")
        now = await assistant.ask("get_artifact", artifact_id=first["id"])
        before = await assistant.ask("get_artifact", artifact_id=first["id"], version=1)

    assert first == {"id": first["id"], "artifact_type": "generated_file", "title": "Plan", "version": 1}
    assert second == {**first, "title": "Better plan", "version": 2}
    assert [(one["id"], one["title"], one["version"]) for one in listed["items"]] == [(first["id"], "Better plan", 2)]
    assert "content_markdown" not in listed["items"][0]
    assert (now["content_markdown"], now["version"]) == ("# Two", 2)
    assert (before["content_markdown"], before["title"], before["version"]) == ("# One", "Plan", 1)


async def test_the_marker_is_exact_whatever_the_title_holds(service: McpService, open_client: OpenClient) -> None:
    """One line, whose JSON lies between the first colon and the last bar."""
    async with open_client(service, await service.secret(WRITE)) as client:
        results = [
            await client.call_tool("save_artifact", {"title": title, "content_markdown": "# Plan"}) for title in TITLES
        ]

    for title, result in zip(TITLES, results, strict=True):
        quoted = json.dumps(title, ensure_ascii=False)
        fields = f'{{"id": "{result.structured_content["id"]}", "artifact_type": "generated_file", "title": {quoted}}}'
        assert text_of(result.content) == f"{BEFORE}{fields}{AFTER}"
        assert "\n" not in fields
        assert result.structured_content["title"] == title


async def test_bad_arguments_are_errors_that_say_where(service: McpService, open_client: OpenClient) -> None:
    async with open_client(service, await service.secret(READ, WRITE)) as client:
        assistant = ToolClient(client)
        errors = [await assistant.fail("save_artifact", **arguments) for arguments, _ in BAD_ARGUMENTS]
        left = await assistant.ask("list_artifacts")

    assert {error["code"] for error in errors} == {"invalid"}
    assert [
        error["detail"] for error, (_, at) in zip(errors, BAD_ARGUMENTS, strict=True) if at not in error["detail"]
    ] == []
    assert left["items"] == []


@pytest.mark.parametrize("letter", ["a", "é", "\\"])
async def test_a_document_may_have_a_mebibyte_and_no_more(
    service: McpService, open_client: OpenClient, letter: str
) -> None:
    """Counted in UTF-8. The error says the limit."""
    most = letter * (MIB // len(letter.encode()))
    async with open_client(service, await service.secret(READ, WRITE)) as client:
        assistant = ToolClient(client)
        kept = await saved(client, content_markdown=most)
        error = await assistant.fail("save_artifact", title="Plan", content_markdown=most + letter)
        (found,) = (await assistant.ask("list_artifacts"))["items"]
        shown = await assistant.ask("get_artifact", artifact_id=kept["id"])

    assert "1048576" in error["detail"]
    assert (found["id"], shown["content_markdown"]) == (kept["id"], most)


async def test_a_stale_version_is_told_and_loses_nothing(service: McpService, open_client: OpenClient) -> None:
    async with open_client(service, await service.secret(READ, WRITE)) as client:
        assistant = ToolClient(client)
        first = await saved(client)
        await saved(client, artifact_id=first["id"], content_markdown="# Two")
        error = await assistant.fail(
            "save_artifact", title="Plan", content_markdown="# Lost", artifact_id=first["id"], version=1
        )
        shown = await assistant.ask("get_artifact", artifact_id=first["id"])

    assert error["code"] == "stale-version"
    assert (shown["content_markdown"], shown["version"]) == ("# Two", 2)


async def test_somebody_elses_document_is_answered_like_one_that_is_not_there(
    service: McpService, open_client: OpenClient
) -> None:
    theirs = await service.artifact(owner=YOU)
    async with open_client(service, await service.secret(READ, WRITE)) as client:
        assistant = ToolClient(client)
        answers = [
            [
                await assistant.fail("get_artifact", artifact_id=id),
                await assistant.fail("save_artifact", artifact_id=id, title="Mine now", content_markdown="# Mine"),
            ]
            for id in (str(theirs.id), NOBODYS)
        ]
        seen = await assistant.ask("list_artifacts")

    assert answers[0] == answers[1]
    assert {error["code"] for error in answers[0]} == {"not-found"}
    assert seen["items"] == []


async def test_the_token_of_a_file_turn_can_save_into_its_conversation_and_nothing_else(
    service: McpService, open_client: OpenClient
) -> None:
    """Neither read, nor change what another conversation has, nor say to which one it saves."""
    turn = await service.turn(WRITE)
    about, elsewhere = turn.turn.conversation_id, await service.conversation("Another")
    others = [await service.artifact(conversation_id=elsewhere.id), await service.artifact()]
    async with open_client(service, turn.secret) as client:
        tools = [tool.name for tool in (await client.list_tools()).tools]
        reference = await saved(client)
        revised = await saved(client, artifact_id=reference["id"], content_markdown="# Two")
        errors = [
            await ToolClient(client).fail("save_artifact", artifact_id=str(id), title="x", content_markdown="x")
            for id in (*(one.id for one in others), NOBODYS)
        ]
    inside = await service.dispatcher.call(ME, find_artifacts, about, None, Window())
    outside = await service.dispatcher.call(ME, find_artifacts, elsewhere.id, None, Window())

    assert tools == ["save_artifact"]
    assert revised["version"] == 2
    assert [(str(one.id), one.turn_id, one.conversation_id) for one in inside.items] == [
        (reference["id"], turn.turn.id, about)
    ]
    assert [one.version for one in outside.items] == [1]
    assert errors == [{"code": "not-found", "detail": "There is no such artifact."}] * 3


async def test_a_token_of_a_conversation_is_shown_its_documents_alone(service: McpService) -> None:
    here, there = await service.conversation("Here"), await service.conversation("There")
    ours, theirs = await service.artifact(conversation_id=here.id), await service.artifact(conversation_id=there.id)
    unfiled = await service.artifact()
    async with in_process(service, await service.secret(READ, conversation_id=here.id)) as client:
        assistant = ToolClient(client)
        listed = await assistant.ask("list_artifacts")
        hidden = [await assistant.fail("get_artifact", artifact_id=str(one.id)) for one in (theirs, unfiled)]

    assert [one["id"] for one in listed["items"]] == [str(ours.id)]
    assert hidden == [{"code": "not-found", "detail": "There is no such artifact."}] * 2
