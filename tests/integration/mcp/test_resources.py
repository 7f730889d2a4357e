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
from tests.integration.mcp.house import ME, YOU, House, Way, in_process
from tests.integration.mcp.test_calling import NOBODYS
from tests.integration.mcp.wire import message, post

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


async def test_documents_are_listed_first_and_then_conversations_page_by_page(house: House) -> None:
    artifacts = [await house.artifact(f"Plan {number}") for number in range(DEFAULT_LIMIT + 1)]
    conversations = [await house.conversation(f"Talk {number}") for number in range(DEFAULT_LIMIT + 1)]
    async with in_process(house, await house.secret(*Grant)) as client:
        pages = await all_pages(client)
    listed = [resource for page in pages for resource in page]
    expected: list[tuple[str, str, Any]] = [("artifacts", "text/markdown", one) for one in reversed(artifacts)]
    expected += [("conversations", "application/json", one) for one in reversed(conversations)]

    assert [len(page) for page in pages] == [DEFAULT_LIMIT, 1, DEFAULT_LIMIT, 1]
    assert [(str(one.uri), one.mime_type, one.name, one.title) for one in listed] == [
        (f"latchkey://{kind}/{one.id}", media_type, one.title, one.title) for kind, media_type, one in expected
    ]


async def test_a_document_is_read_as_its_latest_markdown(house: House, way: Way) -> None:
    text = '# Plan | "quoted" }\r\n計画 👩🏽‍🚀\n'
    artifact = await house.artifact(text=text)
    async with way(house, await house.secret(ARTIFACTS)) as client:
        assert await read(client, f"latchkey://artifacts/{artifact.id}") == ("text/markdown", text)


async def test_a_conversation_is_read_as_its_transcript(house: House, way: Way) -> None:
    turn = await house.turn()
    id = str(turn.turn.conversation_id)
    async with way(house, await house.secret(CONVERSATIONS)) as client:
        media_type, text = await read(client, f"latchkey://conversations/{id}")
    transcript = json.loads(text)

    assert media_type == "application/json"
    assert transcript["conversation"]["id"] == id
    assert [(one["seq"], one["role"], one["content"]) for one in transcript["messages"]] == [(1, "user", "Buy milk")]


@pytest.mark.parametrize(
    "grants", [(ARTIFACTS,), (CONVERSATIONS,), (ARTIFACTS, CONVERSATIONS), (Grant.ARTIFACTS_WRITE, Grant.TASKS_READ)]
)
async def test_each_kind_has_its_grant(house: House, way: Way, grants: tuple[Grant, ...]) -> None:
    conversation, artifact = await house.conversation("Talk"), await house.artifact()
    addresses = {
        ARTIFACTS: f"latchkey://artifacts/{artifact.id}",
        CONVERSATIONS: f"latchkey://conversations/{conversation.id}",
    }
    open_kinds = [grant for grant in addresses if grant in grants]
    async with way(house, await house.secret(*grants)) as client:
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
    house: House, era: str, kind: str, grants: tuple[Grant, ...]
) -> None:
    """Byte for byte, and to a token that does not open it, its own user's too."""
    hidden = [await make(house, kind, YOU)] + ([] if ARTIFACTS in grants else [await make(house, kind, ME)])
    token = (await house.secret(*grants)).text
    async with house.http() as http:
        answers = {id: await read_by_wire(http, era, f"latchkey://{kind}/{id}", token) for id in (NOBODYS, *hidden)}
    absent = answers[NOBODYS]

    uri = f"latchkey://{kind}/{NOBODYS}"
    assert absent.json()["error"] == {"code": -32602, "message": f"Unknown resource: {uri}", "data": {"uri": uri}}
    for id, answer in answers.items():
        assert answer.status_code == absent.status_code
        assert answer.content.replace(id.encode(), NOBODYS.encode()) == absent.content


async def test_a_token_of_a_conversation_reaches_what_belongs_to_it_alone(house: House, way: Way) -> None:
    here, there = await house.conversation("Here"), await house.conversation("There")
    inside = [f"latchkey://artifacts/{(await house.artifact(about=here.id)).id}", f"latchkey://conversations/{here.id}"]
    outside = [
        f"latchkey://artifacts/{(await house.artifact(about=there.id)).id}",
        f"latchkey://artifacts/{(await house.artifact()).id}",
        f"latchkey://conversations/{there.id}",
    ]
    async with way(house, await house.secret(ARTIFACTS, CONVERSATIONS, about=here.id)) as client:
        listed = [str(one.uri) for page in await all_pages(client) for one in page]
        for address in inside:
            await read(client, address)
        for address in outside:
            with pytest.raises(MCPError, match="Unknown resource"):
                await client.read_resource(address)

    assert listed == inside


async def test_nothing_of_anybody_else_is_listed(house: House, way: Way) -> None:
    await house.artifact(owner=YOU)
    await house.conversation(owner=YOU)
    async with way(house, await house.secret(*ALL_GRANTS)) as client:
        assert await all_pages(client) == [[], []]


@pytest.mark.parametrize("address", ODD_ADDRESSES)
async def test_an_address_that_is_none_is_unknown(house: House, era: str, address: str) -> None:
    """Also if it is only nearly that of something that is there."""
    artifact = await house.artifact()
    async with house.http() as http:
        answer = await read_by_wire(http, era, address.replace(NOBODYS, str(artifact.id)), house.jwt())

    assert answer.json()["error"]["code"] == -32602


@pytest.mark.parametrize("cursor", ODD_CURSORS)
@pytest.mark.parametrize("grants", [(), (CONVERSATIONS,), (Grant.TASKS_READ,)], ids=["all", "one", "none"])
async def test_a_cursor_that_this_listing_never_gave_opens_nothing(
    house: House, era: str, grants: tuple[Grant, ...], cursor: str
) -> None:
    """To who may read something it is a mistake; to who may not there is nothing after it either."""
    await house.artifact()
    token = (await house.secret(*(grants or ALL_GRANTS))).text
    async with house.http() as http:
        answer = (await post(http, era, message(era, "resources/list", {"cursor": cursor}), token)).json()

    if Grant.TASKS_READ in grants and cursor.startswith(("artifacts:", "conversations:")):
        assert (answer["result"]["resources"], "nextCursor" in answer["result"]) == ([], False)
    else:
        assert answer["error"]["code"] == -32602


async def test_a_revoked_token_reads_nothing_more(house: House, way: Way) -> None:
    minted, artifact = await house.mint(ARTIFACTS), await house.artifact()
    async with way(house, minted.secret) as client:
        await read(client, f"latchkey://artifacts/{artifact.id}")
        await house.dispatcher.call(ME, revoke_context_token, minted.token.id)
        with pytest.raises(MCPError) as refused:
            await client.read_resource(f"latchkey://artifacts/{artifact.id}")

    assert "Unknown resource" not in str(refused.value)


@pytest.mark.parametrize("method", ["resources/list", "resources/templates/list", "resources/read"])
async def test_what_is_read_is_for_its_caller_alone(house: House, method: str) -> None:
    artifact = await house.artifact()
    params = {"uri": f"latchkey://artifacts/{artifact.id}"} if method == "resources/read" else None
    async with house.http() as http:
        answer = await post(http, "current", message("current", method, params), house.jwt())

    assert answer.json()["result"]["cacheScope"] == "private"


async def make(house: House, kind: str, owner: Any) -> str:
    made = await (house.artifact(owner=owner) if kind == "artifacts" else house.conversation(owner=owner))
    return str(made.id)


async def read_by_wire(http: Any, era: str, address: str, token: str) -> Any:
    return await post(http, era, message(era, "resources/read", {"uri": address}), token)
