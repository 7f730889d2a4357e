"""Notes over HTTP and as tools."""

from typing import Any

import pytest

from tests.support.service import ApiUser, Service

pytestmark = pytest.mark.asyncio(loop_scope="session")


async def texts(user: ApiUser, **params: Any) -> list[str]:
    return [note["text"] for note in await user.list_items("notes", **params)]


async def test_note_is_readable_at_its_location_until_deleted(ada: ApiUser) -> None:
    created = await ada.post("notes", json={"text": "Her bicycle is green"})
    path = f"notes/{created.json()['id']}"
    read = await ada.get(path)
    deleted = await ada.delete(path)

    assert (created.status_code, created.headers["etag"]) == (201, '"1"')
    assert created.headers["location"].endswith(path)
    assert read.json() == created.json()
    assert set(read.json()) == {"id", "text", "version", "created_at", "updated_at"}
    assert deleted.status_code == 204
    assert (await ada.get(path)).status_code == 404


async def test_note_update_with_stale_etag_changes_nothing(ada: ApiUser) -> None:
    note = await ada.create("notes", text="Size 54")
    path = f"notes/{note['id']}"
    changed = await ada.patch(path, json={"text": "Size 56"}, headers={"if-match": '"1"'})
    stale = [
        await ada.patch(path, json={"text": "Size 58"}, headers={"if-match": '"1"'}),
        await ada.delete(path, headers={"if-match": '"1"'}),
    ]

    assert (changed.status_code, changed.json()["version"]) == (200, 2)
    assert [response.status_code for response in stale] == [412, 412]
    assert (await ada.get(path)).json()["text"] == "Size 56"
    assert (await ada.patch(path, json={})).json()["version"] == 2
    assert (await ada.patch(path, json={"text": "Size 56"})).json()["version"] == 2


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("STRASSE", ["Lives in Große Straße"]),
        ("straße groß", ["Lives in Große Straße"]),
        ("ÉTÉ", ["Prefers été"]),
        ("100%", ["Wants 100% wool"]),
        ("a_b", ["Uses a_b"]),
        ("\\", ["Path C:\\"]),
        ("日本", ["住所は日本です"]),
        ("wool straße", []),
    ],
)
async def test_notes_are_found_by_words_in_any_case(service: Service, words: str, expected: list[str]) -> None:
    user = service.user()
    for text in ["Lives in Große Straße", "Prefers été", "Wants 100% wool", "Uses a_b", "Path C:\\", "住所は日本です"]:
        await user.create("notes", text=text)
    await user.create("notes", text="Uses axb and 1000 things")

    assert await texts(user, words=words) == expected


async def test_notes_pages_of_a_search_are_complete_and_newest_first(service: Service) -> None:
    user = service.user()
    for number in range(7):
        await user.create("notes", text=f"Bell {number}")
        await user.create("notes", text=f"Lamp {number}")
    found, cursor = [], None
    while True:
        params = {"words": "bell", "limit": 3} | ({"cursor": cursor} if cursor else {})
        page = (await user.get("notes", params=params)).json()
        found += [note["text"] for note in page["items"]]
        if (cursor := page["next_cursor"]) is None:
            break

    assert found == [f"Bell {number}" for number in reversed(range(7))]


async def test_notes_search_of_too_many_words_is_invalid(ada: ApiUser) -> None:
    response = await ada.get("notes", params={"words": "a b c d e f g h i"})

    assert (response.status_code, response.json()["code"]) == (422, "invalid")
    assert "at most 8 words" in response.json()["errors"][0]["message"]


@pytest.mark.parametrize("text", ["", "   ", "x" * 2001, None, 5, "a\x00b"])
async def test_note_with_invalid_text_is_refused(ada: ApiUser, text: Any) -> None:
    assert (await ada.post("notes", json={"text": text})).status_code == 422


async def test_note_idempotency_key_makes_one_note(service: Service) -> None:
    user = service.user()
    responses = [
        await user.post("notes", json={"text": "Once"}, headers={"idempotency-key": "note-1"}) for _ in range(2)
    ]

    assert responses[0].content == responses[1].content
    assert responses[1].headers["idempotency-replayed"] == "true"
    assert await texts(user) == ["Once"]


async def test_note_tools_do_what_the_rest_operations_do(service: Service) -> None:
    user, bob = service.user(), service.user()
    secret = (await user.create("context-tokens", grants=["notes:read", "notes:write"]))["token"]
    async with service.mcp_client(secret) as client:
        names = [tool.name for tool in (await client.list_tools()).tools]
        note = (await client.call_tool("remember", {"text": "Likes gravel"})).structured_content
        found = (await client.call_tool("recall", {"words": "GRAVEL"})).structured_content
        assert note is not None
        read = (await user.get(f"notes/{note['id']}")).json()
        async with service.mcp_client(bob.token) as other:
            foreign = await other.call_tool("forget", {"note_id": note["id"]})
        forgotten = await client.call_tool("forget", {"note_id": note["id"]})

    assert names == ["remember", "recall", "forget"]
    assert found == {"items": [note], "next_cursor": None}
    assert read == note == forgotten.structured_content
    assert foreign.is_error
    assert await texts(user) == []


async def test_note_tools_are_not_offered_to_the_default_assistant(service: Service) -> None:
    answer = await service.user().chat("What can you do?")

    assert "remember" not in answer["response"]
    assert "add_task" in answer["response"]
