"""An app with tools, grants and a controller, served by the service that loads it by its name."""

from collections.abc import AsyncIterator
from typing import Any, cast

import pytest
import pytest_asyncio

from latchkey.bootstrap.registry import BUILT_IN, Registry
from tests.support.service import Service, run_service, settings_for

pytestmark = pytest.mark.asyncio(loop_scope="session")


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def library(shared_database_url: str) -> AsyncIterator[Service]:
    settings = settings_for(shared_database_url, LATCHKEY_APP="tests.apps.library:app")
    async with run_service(settings, validate=False) as service:
        yield service


async def test_tool_of_app_is_called_over_mcp_with_its_grant(library: Service) -> None:
    ada = library.user()
    token = (await ada.create("context-tokens", grants=["books:write"]))["token"]

    async with library.mcp_client(token) as client:
        tools = (await client.list_tools()).tools
        result = await client.call_tool("borrow_book", {"title": "Ulysses"})

    assert [tool.name for tool in tools] == ["borrow_book"]
    assert tools[0].title == "Borrow a book"
    assert result.structured_content is not None
    assert result.structured_content["title"] == "Ulysses"
    assert [task["title"] for task in await ada.list_items("tasks")] == ["Read Ulysses (1)"]


async def test_tool_of_app_is_unknown_without_its_grant(library: Service) -> None:
    token = (await library.user().create("context-tokens", grants=["books:read", "tasks:write"]))["token"]

    async with library.mcp_client(token) as client:
        names = [tool.name for tool in (await client.list_tools()).tools]

    assert "count_books" in names
    assert "borrow_book" not in names


async def test_duplicate_call_of_app_tool_has_one_effect(library: Service) -> None:
    ada = library.user()

    async with library.mcp_client(ada.token) as client:
        calls = [
            await client.call_tool("borrow_book", {"title": "Emma"}, meta=cast("Any", {"latchkey/callId": "call-1"}))
            for _ in range(2)
        ]

    assert calls[0].structured_content == calls[1].structured_content
    assert len(await ada.list_items("tasks")) == 1


async def test_controller_of_app_is_served_for_its_user(library: Service) -> None:
    ada, bob = library.user(), library.user()
    await ada.create("tasks", title="Read Emma")

    assert (await ada.get("book-count")).json() == {"books": 1}
    assert (await bob.get("book-count")).json() == {"books": 0}
    assert (await library.client.get(ada.path("book-count"))).status_code == 401
    foreign = await library.client.get(ada.path("book-count"), headers={"authorization": f"Bearer {bob.token}"})
    assert foreign.status_code == 403


async def test_grants_of_app_are_published_and_others_are_invalid(library: Service) -> None:
    document = (await library.client.get("/schema/openapi.json")).json()
    response = await library.user().post("context-tokens", json={"grants": ["tasks:read", "films:read"]})

    assert "books:write" in document["components"]["schemas"]["Grant"]["enum"]
    assert "/api/{user_id}/book-count" in document["paths"]
    assert (response.status_code, response.json()["errors"][0]["path"]) == (422, "$.grants[1]")
    assert "books:write" in response.json()["errors"][0]["message"]


async def test_nul_in_argument_is_refused_for_tool_of_app(library: Service) -> None:
    ada = library.user()

    async with library.mcp_client(ada.token) as client:
        result = await client.call_tool("borrow_book", {"title": "a\x00b"})

    assert result.is_error
    assert "Expected text without NUL and without lone surrogates" in result.content[0].text  # type: ignore[union-attr]
    assert await ada.list_items("tasks") == []


async def test_escape_sequences_as_text_and_replacement_characters_are_stored_by_tool_of_app(library: Service) -> None:
    ada = library.user()

    async with library.mcp_client(ada.token) as client:
        result = await client.call_tool("borrow_book", {"title": "\\u0000 \ufffd"})

    assert not result.is_error
    assert (await ada.post("book-count", json={"title": "\\u0000 \ufffd"})).status_code == 201
    assert [task["title"] for task in await ada.list_items("tasks")] == ["Read \\u0000 \ufffd (1)"] * 2


@pytest.mark.parametrize(
    ("body", "path"),
    [
        ({"title": "a\x00b"}, "$.title"),
        ({"title": "a", "notes": {"b": "\x00"}}, "$.notes.b"),
        ({"title": "a", "notes": {"\x00": "b"}}, "$.notes"),
    ],
)
async def test_nul_in_body_of_controller_of_app_is_invalid(library: Service, body: Any, path: str) -> None:
    ada = library.user()

    response = await ada.post("book-count", json=body)

    assert (response.status_code, response.json()["errors"][0]["path"]) == (422, path)
    assert await ada.list_items("tasks") == []


async def test_nul_in_query_parameter_of_controller_of_app_is_invalid(library: Service) -> None:
    response = await library.user().get("book-count/words", params={"words": "a\x00b"})

    assert (response.status_code, response.json()["errors"][0]["path"]) == (422, "words")


async def test_service_without_app_has_the_built_in_tools_and_grants() -> None:
    registry = Registry.of(*BUILT_IN)

    assert list(registry.tools)[:5] == ["add_task", "list_tasks", "complete_task", "delete_task", "update_task"]
    assert not any(name.startswith("books:") for name in registry.grants.names)
