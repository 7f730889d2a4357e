"""What may be read by address, and by whom."""

import json
from base64 import urlsafe_b64encode
from typing import Any

import pytest
from mcp import Client, MCPError
from mcp.types import TextResourceContents

from latchkey.application.context_tokens import revoke_context_token
from latchkey.domain.credentials import ALL_GRANTS, Grant
from latchkey.domain.page import DEFAULT_LIMIT
from tests.integration.mcp.jsonrpc import message, post
from tests.integration.mcp.mcp_service import ME, YOU, McpService, OpenClient, in_process
from tests.integration.mcp.test_tool_calls import NOBODYS

ARTIFACTS, CONVERSATIONS = Grant.ARTIFACTS_READ, Grant.CONVERSATIONS_READ
TEMPLATES = {ARTIFACTS: "latchkey://artifacts/{id}", CONVERSATIONS: "latchkey://conversations/{id}"}

ODD_ADDRESSES = [
    "latchkey://artifacts/",
    "latchkey://artifacts/x",
    f"latchkey://artifacts/{NOBODYS}/",
    f"latchkey://artifacts/{NOBODYS}\n",
    f"latchkey://artifacts/{NOBODYS}?user_id=you",
    f"latchkey://artifacts/../conversations/{NOBODYS}",
    f"latchkey://artifacts/{'-' * 36}",
    f"latchkey://tasks/{NOBODYS}",
    "latchkey://artifacts/{id}",
    "file:///etc/passwd",
    "",
]
ODD_CURSORS = [
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


async def read(client: Client, address: str) -> tuple[str | None, str]:
    (content,) = (await client.read_resource(address)).contents
    assert isinstance(content, TextResourceContents)
    assert str(content.uri) == address
    return content.mime_type, content.text


async def test_documents_are_listed_first_and_then_conversations_page_by_page(service: McpService) -> None:
    artifacts = [await service.artifact(f"Plan {number}") for number in range(DEFAULT_LIMIT + 1)]
    conversations = [await service.conversation(f"Talk {number}") for number in range(DEFAULT_LIMIT + 1)]
    async with in_process(service, await service.secret(*Grant)) as client:
        pages = await all_pages(client)
    listed = [resource for page in pages for resource in page]
    expected: list[tuple[str, str, Any]] = [("artifacts", "text/markdown", one) for one in reversed(artifacts)]
    expected += [("conversations", "application/json", one) for one in reversed(conversations)]

    assert [len(page) for page in pages] == [DEFAULT_LIMIT, 1, DEFAULT_LIMIT, 1]
    assert [(str(one.uri), one.mime_type, one.name, one.title) for one in listed] == [
        (f"latchkey://{kind}/{one.id}", media_type, one.title, one.title) for kind, media_type, one in expected
    ]


async def test_a_document_is_read_as_its_latest_markdown(service: McpService, open_client: OpenClient) -> None:
    text = '# Plan | "quoted" }\r\n計画 👩🏽‍🚀\n'
    artifact = await service.artifact(text=text)
    async with open_client(service, await service.secret(ARTIFACTS)) as client:
        assert await read(client, f"latchkey://artifacts/{artifact.id}") == ("text/markdown", text)


async def test_a_conversation_is_read_as_its_transcript(service: McpService, open_client: OpenClient) -> None:
    turn = await service.turn()
    id = str(turn.turn.conversation_id)
    async with open_client(service, await service.secret(CONVERSATIONS)) as client:
        media_type, text = await read(client, f"latchkey://conversations/{id}")
    transcript = json.loads(text)

    assert media_type == "application/json"
    assert transcript["conversation"]["id"] == id
    assert [(one["seq"], one["role"], one["content"]) for one in transcript["messages"]] == [(1, "user", "Buy milk")]


@pytest.mark.parametrize(
    "grants", [(ARTIFACTS,), (CONVERSATIONS,), (ARTIFACTS, CONVERSATIONS), (Grant.ARTIFACTS_WRITE, Grant.TASKS_READ)]
)
async def test_each_kind_has_its_grant(service: McpService, open_client: OpenClient, grants: tuple[Grant, ...]) -> None:
    conversation, artifact = await service.conversation("Talk"), await service.artifact()
    addresses = {
        ARTIFACTS: f"latchkey://artifacts/{artifact.id}",
        CONVERSATIONS: f"latchkey://conversations/{conversation.id}",
    }
    open_kinds = [grant for grant in addresses if grant in grants]
    async with open_client(service, await service.secret(*grants)) as client:
        listed = [str(one.uri) for page in await all_pages(client) for one in page]
        templates = (await client.list_resource_templates()).resource_templates
        for grant in open_kinds:
            await read(client, addresses[grant])
        for grant in addresses.keys() - set(open_kinds):
            with pytest.raises(MCPError, match="Unknown resource"):
                await client.read_resource(addresses[grant])

    assert listed == [addresses[grant] for grant in open_kinds]
    assert [one.uri_template for one in templates] == [TEMPLATES[grant] for grant in open_kinds]


@pytest.mark.parametrize("kind", ["artifacts", "conversations"])
@pytest.mark.parametrize("grants", [(ARTIFACTS, CONVERSATIONS), (Grant.TASKS_READ,)], ids=["granted", "ungranted"])
async def test_what_is_somebody_elses_or_not_opened_is_answered_like_what_is_not_there(
    service: McpService, protocol: str, kind: str, grants: tuple[Grant, ...]
) -> None:
    """Byte for byte, and to a token that does not open it, its own user's too."""
    hidden = [await make(service, kind, YOU)] + ([] if ARTIFACTS in grants else [await make(service, kind, ME)])
    token = (await service.secret(*grants)).text
    async with service.http() as http:
        answers = {
            id: await read_over_http(http, protocol, f"latchkey://{kind}/{id}", token) for id in (NOBODYS, *hidden)
        }
    absent = answers[NOBODYS]

    uri = f"latchkey://{kind}/{NOBODYS}"
    assert absent.json()["error"] == {"code": -32602, "message": f"Unknown resource: {uri}", "data": {"uri": uri}}
    for id, answer in answers.items():
        assert answer.status_code == absent.status_code
        assert answer.content.replace(id.encode(), NOBODYS.encode()) == absent.content


async def test_a_token_of_a_conversation_reaches_what_belongs_to_it_alone(
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
        listed = [str(one.uri) for page in await all_pages(client) for one in page]
        for address in inside:
            await read(client, address)
        for address in outside:
            with pytest.raises(MCPError, match="Unknown resource"):
                await client.read_resource(address)

    assert listed == inside


async def test_nothing_of_anybody_else_is_listed(service: McpService, open_client: OpenClient) -> None:
    await service.artifact(owner=YOU)
    await service.conversation(owner=YOU)
    async with open_client(service, await service.secret(*ALL_GRANTS)) as client:
        assert await all_pages(client) == [[], []]


@pytest.mark.parametrize("address", ODD_ADDRESSES)
async def test_an_address_that_is_none_is_unknown(service: McpService, protocol: str, address: str) -> None:
    """Also if it is only nearly that of something that is there."""
    artifact = await service.artifact()
    async with service.http() as http:
        answer = await read_over_http(http, protocol, address.replace(NOBODYS, str(artifact.id)), service.jwt())

    assert answer.json()["error"]["code"] == -32602


@pytest.mark.parametrize("cursor", ODD_CURSORS)
@pytest.mark.parametrize("grants", [(), (CONVERSATIONS,), (Grant.TASKS_READ,)], ids=["all", "one", "none"])
async def test_a_cursor_that_this_listing_never_gave_opens_nothing(
    service: McpService, protocol: str, grants: tuple[Grant, ...], cursor: str
) -> None:
    """To who may read something it is a mistake; to who may not there is nothing after it either."""
    await service.artifact()
    token = (await service.secret(*(grants or ALL_GRANTS))).text
    async with service.http() as http:
        answer = (await post(http, protocol, message(protocol, "resources/list", {"cursor": cursor}), token)).json()

    if Grant.TASKS_READ in grants and cursor.startswith(("artifacts:", "conversations:")):
        assert (answer["result"]["resources"], "nextCursor" in answer["result"]) == ([], False)
    else:
        assert answer["error"]["code"] == -32602


async def test_a_revoked_token_reads_nothing_more(service: McpService, open_client: OpenClient) -> None:
    minted, artifact = await service.mint(ARTIFACTS), await service.artifact()
    async with open_client(service, minted.secret) as client:
        await read(client, f"latchkey://artifacts/{artifact.id}")
        await service.dispatcher.call(ME, revoke_context_token, minted.token.id)
        with pytest.raises(MCPError) as refused:
            await client.read_resource(f"latchkey://artifacts/{artifact.id}")

    assert "Unknown resource" not in str(refused.value)


@pytest.mark.parametrize("method", ["resources/list", "resources/templates/list", "resources/read"])
async def test_what_is_read_is_for_its_caller_alone(service: McpService, method: str) -> None:
    artifact = await service.artifact()
    params = {"uri": f"latchkey://artifacts/{artifact.id}"} if method == "resources/read" else None
    async with service.http() as http:
        answer = await post(http, "current", message("current", method, params), service.jwt())

    assert answer.json()["result"]["cacheScope"] == "private"


async def make(service: McpService, kind: str, owner: Any) -> str:
    made = await (service.artifact(owner=owner) if kind == "artifacts" else service.conversation(owner=owner))
    return str(made.id)


async def read_over_http(http: Any, protocol: str, address: str, token: str) -> Any:
    return await post(http, protocol, message(protocol, "resources/read", {"uri": address}), token)
