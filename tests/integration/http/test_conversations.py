"""Conversations, their messages and their turns over HTTP."""

import asyncio
from asyncio import Event

import pytest

from tests.fakes.model_script import says
from tests.fakes.model_server import ModelServer
from tests.support.service import ApiUser, Service

pytestmark = pytest.mark.asyncio(loop_scope="session")


async def test_conversation_created_is_readable_at_its_location(ada: ApiUser) -> None:
    created = await ada.post("conversations", json={"title": "Groceries"})
    read = await ada.client.get(created.headers["location"], headers={"authorization": f"Bearer {ada.token}"})

    assert (created.status_code, read.content) == (201, created.content)
    assert created.json()["title"] == "Groceries"


@pytest.mark.parametrize("body", [{}, {"title": None}])
async def test_conversation_title_is_optional(ada: ApiUser, body: dict[str, None]) -> None:
    assert (await ada.create("conversations", **body))["title"] is None


async def test_conversation_listing_is_ordered_by_last_activity(ada: ApiUser) -> None:
    old, new = await ada.create("conversations", title="old"), await ada.create("conversations", title="new")
    before = [item["id"] for item in await ada.list_items("conversations")]
    await ada.chat("hello", conversation_id=old["id"])
    after = await ada.list_items("conversations")

    assert before == [new["id"], old["id"]]
    assert [item["id"] for item in after] == [old["id"], new["id"]]
    assert after[0]["updated_at"] > old["updated_at"]
    assert after[1] == new


async def test_conversation_pagination_returns_each_item_once(ada: ApiUser) -> None:
    ids = [(await ada.create("conversations"))["id"] for _ in range(5)]
    first = (await ada.get("conversations", params={"limit": 3})).json()
    rest = (await ada.get("conversations", params={"limit": 3, "cursor": first["next_cursor"]})).json()

    assert [item["id"] for item in first["items"] + rest["items"]] == ids[::-1]
    assert rest["next_cursor"] is None


async def test_conversation_patch_changes_clears_or_keeps_the_title(ada: ApiUser) -> None:
    path = f"conversations/{(await ada.create('conversations', title='Groceries'))['id']}"
    left = (await ada.patch(path, json={})).json()
    changed = (await ada.patch(path, json={"title": "Shopping"})).json()
    cleared = (await ada.patch(path, json={"title": None})).json()

    assert [item["title"] for item in (left, changed, cleared)] == ["Groceries", "Shopping", None]
    assert (await ada.get(path)).json() == cleared


async def test_conversation_shows_its_last_message_and_running_turn(
    model_service: Service, model: ModelServer, gate: Event
) -> None:
    ada = model_service.user()
    model.script += [says("Sure. " * 50), says("Yes.").held(gate)]
    created = await ada.create("conversations")
    path = f"conversations/{created['id']}"
    answer = await ada.chat("Buy milk", conversation_id=created["id"])
    answered = (await ada.get(path)).json()
    waiting = asyncio.create_task(ada.chat("And eggs", conversation_id=created["id"]))
    await model.wait_for_requests(2)
    running = (await ada.get(path)).json()
    (listed,) = await ada.list_items("conversations")
    patched = (await ada.patch(path, json={"title": "Mine"})).json()
    gate.set()
    last = await waiting
    ended = (await ada.get(path)).json()

    assert (created["last_message"], created["running_turn_id"]) == (None, None)
    assert answered["running_turn_id"] is None
    assert answered["last_message"] == {
        "id": answer["message"]["id"],
        "role": "assistant",
        "content": ("Sure. " * 50)[:200],
        "created_at": answer["message"]["created_at"],
    }
    assert (running["last_message"]["role"], running["last_message"]["content"]) == ("user", "And eggs")
    assert running["running_turn_id"] == last["turn_id"]
    assert listed == running
    assert patched == {**running, "title": "Mine", "updated_at": patched["updated_at"]}
    assert (ended["last_message"]["content"], ended["running_turn_id"]) == ("Yes.", None)


async def test_conversation_delete_removes_messages_and_turns_and_keeps_tasks(ada: ApiUser) -> None:
    answer = await ada.chat('/add_task {"title": "Buy milk"}')
    path = f"conversations/{answer['conversation_id']}"
    deleted = await ada.delete(path)
    gone = [path, f"{path}/messages", f"{path}/turns", f"turns/{answer['turn_id']}"]

    assert (deleted.status_code, deleted.content) == (204, b"")
    assert [(await ada.get(path)).status_code for path in gone] == [404] * 4
    assert [(task["title"], task["conversation_id"]) for task in await ada.list_items("tasks")] == [("Buy milk", None)]


async def test_message_listing_is_numbered_without_gaps_in_both_orders(ada: ApiUser) -> None:
    conversation_id = (await ada.chat("one"))["conversation_id"]
    for text in ("two", "three"):
        await ada.chat(text, conversation_id=conversation_id)
    listing = f"conversations/{conversation_id}/messages"
    messages = await ada.list_items(listing)

    assert [message["seq"] for message in messages] == [1, 2, 3, 4, 5, 6]
    assert [message["role"] for message in messages] == ["user", "assistant"] * 3
    assert [message["content"] for message in messages[::2]] == ["one", "two", "three"]
    assert await ada.list_items(listing, order="desc") == messages[::-1]


@pytest.mark.parametrize("order", ["asc", "desc"])
async def test_message_pagination_cursor_keeps_the_order(ada: ApiUser, order: str) -> None:
    conversation_id = (await ada.chat("one"))["conversation_id"]
    await ada.chat("two", conversation_id=conversation_id)
    listing = f"conversations/{conversation_id}/messages"
    first = (await ada.get(listing, params={"order": order, "limit": 3})).json()
    rest = (await ada.get(listing, params={"order": order, "limit": 3, "cursor": first["next_cursor"]})).json()

    assert first["items"] + rest["items"] == await ada.list_items(listing, order=order)
    assert rest["next_cursor"] is None


async def test_conversation_new_has_no_messages_and_no_turns(ada: ApiUser) -> None:
    path = f"conversations/{(await ada.create('conversations'))['id']}"

    assert await ada.list_items(f"{path}/messages") == []
    assert await ada.list_items(f"{path}/turns") == []


async def test_turn_listing_is_newest_first_with_tool_calls(ada: ApiUser) -> None:
    first = await ada.chat('/add_task {"title": "Buy milk"}')
    second = await ada.chat("/list_tasks", conversation_id=first["conversation_id"])
    turns = await ada.list_items(f"conversations/{first['conversation_id']}/turns")

    assert [turn["id"] for turn in turns] == [second["turn_id"], first["turn_id"]]
    assert [turn["tool_calls"] for turn in turns] == [second["tool_calls"], first["tool_calls"]]
    assert turns[1] == (await ada.get(f"turns/{first['turn_id']}")).json()
    assert {"status": "completed", "agent": "rehearsal", "error": None}.items() <= turns[1].items()
    assert turns[1]["started_at"] < turns[1]["finished_at"]
