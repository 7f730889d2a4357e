"""Calls of the artifact tools."""

import json
from typing import Any

import pytest
from mcp import Client

from latchkey.application.artifacts import find_artifacts
from latchkey.domain.credentials import ARTIFACTS_READ, ARTIFACTS_WRITE
from latchkey.domain.page import Window
from tests.integration.mcp.mcp_service import ME, YOU, McpService, OpenClient, in_process
from tests.integration.mcp.test_tool_calls import UNKNOWN_ID, ToolClient, text_of

READ, WRITE = ARTIFACTS_READ, ARTIFACTS_WRITE
PREFIX, SUFFIX = "ARTIFACT_CREATED:", "|File generated successfully."
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
INVALID_ARGUMENTS: list[tuple[dict[str, Any], str]] = [
    ({"content_markdown": "# Plan"}, "title"),
    ({"title": "Plan"}, "content_markdown"),
    ({"title": " \n", "content_markdown": "# Plan"}, "$.title"),
    ({"title": "x" * 201, "content_markdown": "# Plan"}, "$.title"),
    ({"title": "Plan\x00", "content_markdown": "# Plan"}, "$.title"),
    ({"title": "Plan", "content_markdown": "\x00"}, "$.content_markdown"),
    ({"title": "Plan", "content_markdown": None}, "$.content_markdown"),
    ({"title": "Plan", "content_markdown": "", "artifact_id": "7"}, "$.artifact_id"),
    ({"title": "Plan", "content_markdown": "", "artifact_id": UNKNOWN_ID, "version": 0}, "$.version"),
    ({"title": "Plan", "content_markdown": "", "artifact_type": "brd"}, "artifact_type"),
    ({"title": "Plan", "content_markdown": "", "conversation_id": UNKNOWN_ID}, "conversation_id"),
    ({"title": "Plan", "content_markdown": "", "user_id": "you"}, "user_id"),
]


async def save(client: Client, **arguments: Any) -> dict[str, Any]:
    """Save an artifact and return its structured content, which the marker in the text repeats."""
    result = await client.call_tool("save_artifact", {"title": "Plan", "content_markdown": "# Plan", **arguments})
    assert not result.is_error, result.content
    reference: dict[str, Any] = result.structured_content
    text = text_of(result.content)
    assert text.startswith(PREFIX)
    assert text.endswith(SUFFIX)
    marker = json.loads(text[len(PREFIX) : -len(SUFFIX)])
    assert marker == {name: reference[name] for name in ("id", "artifact_type", "title")}
    return reference


async def test_artifact_is_saved_listed_read_and_revised(service: McpService, open_client: OpenClient) -> None:
    async with open_client(service, await service.secret(READ, WRITE)) as client:
        tools = ToolClient(client)
        first = await save(client, content_markdown="# One")
        second = await save(client, content_markdown="# Two", artifact_id=first["id"], version=1, title="Better plan")
        listed = await tools.call("list_artifacts")
        now = await tools.call("get_artifact", artifact_id=first["id"])
        before = await tools.call("get_artifact", artifact_id=first["id"], version=1)

    assert first == {"id": first["id"], "artifact_type": "generated_file", "title": "Plan", "version": 1}
    assert second == {**first, "title": "Better plan", "version": 2}
    assert [(item["id"], item["title"], item["version"]) for item in listed["items"]] == [
        (first["id"], "Better plan", 2)
    ]
    assert "content_markdown" not in listed["items"][0]
    assert (now["content_markdown"], now["version"]) == ("# Two", 2)
    assert (before["content_markdown"], before["title"], before["version"]) == ("# One", "Plan", 1)


async def test_artifact_marker_is_exact_for_any_title(service: McpService, open_client: OpenClient) -> None:
    """One line, with JSON between the first colon and the last bar."""
    async with open_client(service, await service.secret(WRITE)) as client:
        results = [
            await client.call_tool("save_artifact", {"title": title, "content_markdown": "# Plan"}) for title in TITLES
        ]

    for title, result in zip(TITLES, results, strict=True):
        quoted = json.dumps(title, ensure_ascii=False)
        fields = f'{{"id": "{result.structured_content["id"]}", "artifact_type": "generated_file", "title": {quoted}}}'
        assert text_of(result.content) == f"{PREFIX}{fields}{SUFFIX}"
        assert "\n" not in fields
        assert result.structured_content["title"] == title


async def test_invalid_arguments_are_errors_with_the_path_and_without_effect(
    service: McpService, open_client: OpenClient
) -> None:
    async with open_client(service, await service.secret(READ, WRITE)) as client:
        tools = ToolClient(client)
        errors = [await tools.call_error("save_artifact", **arguments) for arguments, _ in INVALID_ARGUMENTS]
        remaining = await tools.call("list_artifacts")

    assert {error["code"] for error in errors} == {"invalid"}
    assert [
        error["detail"]
        for error, (_, path) in zip(errors, INVALID_ARGUMENTS, strict=True)
        if path not in error["detail"]
    ] == []
    assert remaining["items"] == []


@pytest.mark.parametrize("letter", ["a", "é", "\\"])
async def test_artifact_content_is_limited_to_one_mebibyte(
    service: McpService, open_client: OpenClient, letter: str
) -> None:
    """Measured in UTF-8. The error names the limit."""
    longest = letter * (MIB // len(letter.encode()))
    async with open_client(service, await service.secret(READ, WRITE)) as client:
        tools = ToolClient(client)
        saved = await save(client, content_markdown=longest)
        error = await tools.call_error("save_artifact", title="Plan", content_markdown=longest + letter)
        (found,) = (await tools.call("list_artifacts"))["items"]
        shown = await tools.call("get_artifact", artifact_id=saved["id"])

    assert "1048576" in error["detail"]
    assert (found["id"], shown["content_markdown"]) == (saved["id"], longest)


async def test_save_artifact_with_stale_version_is_an_error_without_effect(
    service: McpService, open_client: OpenClient
) -> None:
    async with open_client(service, await service.secret(READ, WRITE)) as client:
        tools = ToolClient(client)
        first = await save(client)
        await save(client, artifact_id=first["id"], content_markdown="# Two")
        error = await tools.call_error(
            "save_artifact", title="Plan", content_markdown="# Lost", artifact_id=first["id"], version=1
        )
        shown = await tools.call("get_artifact", artifact_id=first["id"])

    assert error["code"] == "stale-version"
    assert (shown["content_markdown"], shown["version"]) == ("# Two", 2)


async def test_artifact_of_another_user_responds_like_unknown_artifact_isolation(
    service: McpService, open_client: OpenClient
) -> None:
    theirs = await service.artifact(owner=YOU)
    async with open_client(service, await service.secret(READ, WRITE)) as client:
        tools = ToolClient(client)
        errors = [
            [
                await tools.call_error("get_artifact", artifact_id=id),
                await tools.call_error("save_artifact", artifact_id=id, title="Mine now", content_markdown="# Mine"),
            ]
            for id in (str(theirs.id), UNKNOWN_ID)
        ]
        seen = await tools.call("list_artifacts")

    assert errors[0] == errors[1]
    assert {error["code"] for error in errors[0]} == {"not-found"}
    assert seen["items"] == []


async def test_token_of_file_turn_can_only_save_into_its_conversation(
    service: McpService, open_client: OpenClient
) -> None:
    """It can neither read, nor change an artifact of another conversation, nor choose the conversation."""
    turn = await service.turn(WRITE)
    about, elsewhere = turn.turn.conversation_id, await service.conversation("Another")
    others = [await service.artifact(conversation_id=elsewhere.id), await service.artifact()]
    async with open_client(service, turn.secret) as client:
        tools = [tool.name for tool in (await client.list_tools()).tools]
        reference = await save(client)
        revised = await save(client, artifact_id=reference["id"], content_markdown="# Two")
        errors = [
            await ToolClient(client).call_error("save_artifact", artifact_id=str(id), title="x", content_markdown="x")
            for id in (*(artifact.id for artifact in others), UNKNOWN_ID)
        ]
    inside = await service.dispatcher.call(ME, find_artifacts, about, None, Window())
    outside = await service.dispatcher.call(ME, find_artifacts, elsewhere.id, None, Window())

    assert tools == ["save_artifact"]
    assert revised["version"] == 2
    assert [(str(item.id), item.turn_id, item.conversation_id) for item in inside.items] == [
        (reference["id"], turn.turn.id, about)
    ]
    assert [item.version for item in outside.items] == [1]
    assert errors == [{"code": "not-found", "detail": "There is no such artifact."}] * 3


async def test_token_bound_to_conversation_sees_artifacts_of_that_conversation_only(service: McpService) -> None:
    here, there = await service.conversation("Here"), await service.conversation("There")
    ours, theirs = await service.artifact(conversation_id=here.id), await service.artifact(conversation_id=there.id)
    unfiled = await service.artifact()
    async with in_process(service, await service.secret(READ, conversation_id=here.id)) as client:
        tools = ToolClient(client)
        listed = await tools.call("list_artifacts")
        hidden = [
            await tools.call_error("get_artifact", artifact_id=str(artifact.id)) for artifact in (theirs, unfiled)
        ]

    assert [item["id"] for item in listed["items"]] == [str(ours.id)]
    assert hidden == [{"code": "not-found", "detail": "There is no such artifact."}] * 2
