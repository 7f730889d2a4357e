"""`resources/list`, `resources/templates/list` and `resources/read`, by grant."""

import json
from base64 import urlsafe_b64encode
from typing import Any

import pytest
from mcp import Client, MCPError
from mcp.types import TextResourceContents

from latchkey.application.context_tokens import revoke_context_token
from latchkey.domain.credentials import (
    ARTIFACTS_READ,
    ARTIFACTS_WRITE,
    CONVERSATIONS_READ,
    TASKS_READ,
    Grant,
)
from latchkey.domain.page import DEFAULT_LIMIT
from tests.integration.mcp.jsonrpc import message, post
from tests.integration.mcp.mcp_service import ME, YOU, McpService, OpenClient, in_process
from tests.integration.mcp.test_tool_calls import UNKNOWN_ID
from tests.support.tools import ALL_GRANTS

ARTIFACTS, CONVERSATIONS = ARTIFACTS_READ, CONVERSATIONS_READ
TEMPLATES = {ARTIFACTS: "latchkey://artifacts/{id}", CONVERSATIONS: "latchkey://conversations/{id}"}

INVALID_URIS = [
    "latchkey://artifacts/",
    "latchkey://artifacts/x",
    f"latchkey://artifacts/{UNKNOWN_ID}/",
    f"latchkey://artifacts/{UNKNOWN_ID}\n",
    f"latchkey://artifacts/{UNKNOWN_ID}?user_id=you",
    f"latchkey://artifacts/../conversations/{UNKNOWN_ID}",
    f"latchkey://artifacts/{'-' * 36}",
    f"latchkey://tasks/{UNKNOWN_ID}",
    "latchkey://artifacts/{id}",
    "file:///etc/passwd",
    "",
]
INVALID_CURSORS = [
    "x",
    "tasks:",
    "artifacts:x",
    "conversations:x",
    "artifacts:bnVsbA",
    f"artifacts:{urlsafe_b64encode(b'[' * 300).decode()}",
    "conversations:é",
]


async def all_pages(client: Client) -> list[list[Any]]:
    pages = [await client.list_resources()]
    while pages[-1].next_cursor is not None:
        pages.append(await client.list_resources(cursor=pages[-1].next_cursor))
    return [page.resources for page in pages]


async def read(client: Client, uri: str) -> tuple[str | None, str]:
    (content,) = (await client.read_resource(uri)).contents
    assert isinstance(content, TextResourceContents)
    assert str(content.uri) == uri
    return content.mime_type, content.text


async def test_resources_list_pagination_shows_artifacts_then_conversations(service: McpService) -> None:
    artifacts = [await service.artifact(f"Plan {number}") for number in range(DEFAULT_LIMIT + 1)]
    conversations = [await service.conversation(f"Talk {number}") for number in range(DEFAULT_LIMIT + 1)]
    async with in_process(service, await service.secret(*ALL_GRANTS)) as client:
        pages = await all_pages(client)
    listed = [resource for page in pages for resource in page]
    expected: list[tuple[str, str, Any]] = [
        ("artifacts", "text/markdown", artifact) for artifact in reversed(artifacts)
    ]
    expected += [("conversations", "application/json", conversation) for conversation in reversed(conversations)]

    assert [len(page) for page in pages] == [DEFAULT_LIMIT, 1, DEFAULT_LIMIT, 1]
    assert [(str(item.uri), item.mime_type, item.name, item.title) for item in listed] == [
        (f"latchkey://{collection}/{item.id}", media_type, item.title, item.title)
        for collection, media_type, item in expected
    ]


async def test_resource_of_artifact_is_its_latest_markdown(service: McpService, open_client: OpenClient) -> None:
    text = '# Plan | "quoted" }\r\n計画 👩🏽‍🚀\n'
    artifact = await service.artifact(text=text)
    async with open_client(service, await service.secret(ARTIFACTS)) as client:
        assert await read(client, f"latchkey://artifacts/{artifact.id}") == ("text/markdown", text)


async def test_resource_of_conversation_is_its_transcript(service: McpService, open_client: OpenClient) -> None:
    turn = await service.turn()
    id = str(turn.turn.conversation_id)
    async with open_client(service, await service.secret(CONVERSATIONS)) as client:
        media_type, text = await read(client, f"latchkey://conversations/{id}")
    transcript = json.loads(text)

    assert media_type == "application/json"
    assert transcript["conversation"]["id"] == id
    assert [(item["seq"], item["role"], item["content"]) for item in transcript["messages"]] == [
        (1, "user", "Buy milk")
    ]


@pytest.mark.parametrize(
    "grants", [(ARTIFACTS,), (CONVERSATIONS,), (ARTIFACTS, CONVERSATIONS), (ARTIFACTS_WRITE, TASKS_READ)]
)
async def test_resources_require_the_grant_of_their_collection(
    service: McpService, open_client: OpenClient, grants: tuple[Grant, ...]
) -> None:
    conversation, artifact = await service.conversation("Talk"), await service.artifact()
    uries = {
        ARTIFACTS: f"latchkey://artifacts/{artifact.id}",
        CONVERSATIONS: f"latchkey://conversations/{conversation.id}",
    }
    granted = [grant for grant in uries if grant in grants]
    async with open_client(service, await service.secret(*grants)) as client:
        listed = [str(item.uri) for page in await all_pages(client) for item in page]
        templates = (await client.list_resource_templates()).resource_templates
        for grant in granted:
            await read(client, uries[grant])
        for grant in uries.keys() - set(granted):
            with pytest.raises(MCPError, match="Unknown resource"):
                await client.read_resource(uries[grant])

    assert listed == [uries[grant] for grant in granted]
    assert [template.uri_template for template in templates] == [TEMPLATES[grant] for grant in granted]


@pytest.mark.parametrize("collection", ["artifacts", "conversations"])
@pytest.mark.parametrize("grants", [(ARTIFACTS, CONVERSATIONS), (TASKS_READ,)], ids=["granted", "ungranted"])
async def test_resource_of_another_user_or_without_grant_responds_like_unknown_resource_isolation(
    service: McpService, protocol: str, collection: str, grants: tuple[Grant, ...]
) -> None:
    """Byte for byte. Without the grant, also a resource of the same user."""
    hidden = [await create(service, collection, YOU)] + (
        [] if ARTIFACTS in grants else [await create(service, collection, ME)]
    )
    token = (await service.secret(*grants)).text
    async with service.http() as http:
        responses = {
            id: await read_over_http(http, protocol, f"latchkey://{collection}/{id}", token)
            for id in (UNKNOWN_ID, *hidden)
        }
    absent = responses[UNKNOWN_ID]

    uri = f"latchkey://{collection}/{UNKNOWN_ID}"
    assert absent.json()["error"] == {"code": -32602, "message": f"Unknown resource: {uri}", "data": {"uri": uri}}
    for id, response in responses.items():
        assert response.status_code == absent.status_code
        assert response.content.replace(id.encode(), UNKNOWN_ID.encode()) == absent.content


async def test_token_bound_to_conversation_reads_resources_of_that_conversation_only(
    service: McpService, open_client: OpenClient
) -> None:
    here, there = await service.conversation("Here"), await service.conversation("There")
    inside = [
        f"latchkey://artifacts/{(await service.artifact(conversation_id=here.id)).id}",
        f"latchkey://conversations/{here.id}",
    ]
    outside = [
        f"latchkey://artifacts/{(await service.artifact(conversation_id=there.id)).id}",
        f"latchkey://artifacts/{(await service.artifact()).id}",
        f"latchkey://conversations/{there.id}",
    ]
    async with open_client(service, await service.secret(ARTIFACTS, CONVERSATIONS, conversation_id=here.id)) as client:
        listed = [str(item.uri) for page in await all_pages(client) for item in page]
        for uri in inside:
            await read(client, uri)
        for uri in outside:
            with pytest.raises(MCPError, match="Unknown resource"):
                await client.read_resource(uri)

    assert listed == inside


async def test_resources_list_contains_nothing_of_other_users(service: McpService, open_client: OpenClient) -> None:
    await service.artifact(owner=YOU)
    await service.conversation(owner=YOU)
    async with open_client(service, await service.secret(*ALL_GRANTS)) as client:
        assert await all_pages(client) == [[], []]


@pytest.mark.parametrize("uri", INVALID_URIS)
async def test_resource_with_invalid_uri_is_unknown(service: McpService, protocol: str, uri: str) -> None:
    """Even if the URI is similar to the URI of an existing resource."""
    artifact = await service.artifact()
    async with service.http() as http:
        response = await read_over_http(http, protocol, uri.replace(UNKNOWN_ID, str(artifact.id)), service.jwt())

    assert response.json()["error"]["code"] == -32602


@pytest.mark.parametrize("cursor", INVALID_CURSORS)
@pytest.mark.parametrize("grants", [(), (CONVERSATIONS,), (TASKS_READ,)], ids=["all", "one", "none"])
async def test_resources_list_with_invalid_cursor_shows_nothing(
    service: McpService, protocol: str, grants: tuple[Grant, ...], cursor: str
) -> None:
    """An error for a token that may list something; an empty page for a token that may not."""
    await service.artifact()
    token = (await service.secret(*(grants or ALL_GRANTS))).text
    async with service.http() as http:
        response = (await post(http, protocol, message(protocol, "resources/list", {"cursor": cursor}), token)).json()

    if TASKS_READ in grants and cursor.startswith(("artifacts:", "conversations:")):
        assert (response["result"]["resources"], "nextCursor" in response["result"]) == ([], False)
    else:
        assert response["error"]["code"] == -32602


async def test_resource_with_revoked_token_cannot_be_read(service: McpService, open_client: OpenClient) -> None:
    minted, artifact = await service.mint(ARTIFACTS), await service.artifact()
    async with open_client(service, minted.secret) as client:
        await read(client, f"latchkey://artifacts/{artifact.id}")
        await service.dispatcher.call(ME, revoke_context_token, minted.token.id)
        with pytest.raises(MCPError) as raised:
            await client.read_resource(f"latchkey://artifacts/{artifact.id}")

    assert "Unknown resource" not in str(raised.value)


@pytest.mark.parametrize("method", ["resources/list", "resources/templates/list", "resources/read"])
async def test_resources_results_are_private_to_the_credential(service: McpService, method: str) -> None:
    artifact = await service.artifact()
    params = {"uri": f"latchkey://artifacts/{artifact.id}"} if method == "resources/read" else None
    async with service.http() as http:
        response = await post(http, "current", message("current", method, params), service.jwt())

    assert response.json()["result"]["cacheScope"] == "private"


async def create(service: McpService, collection: str, owner: Any) -> str:
    created = await (service.artifact(owner=owner) if collection == "artifacts" else service.conversation(owner=owner))
    return str(created.id)


async def read_over_http(http: Any, protocol: str, uri: str, token: str) -> Any:
    return await post(http, protocol, message(protocol, "resources/read", {"uri": uri}), token)
