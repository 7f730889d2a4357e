"""Tasks over HTTP."""

from datetime import UTC, datetime
from uuid import UUID

import pytest

from tests.support.service import ApiUser

pytestmark = pytest.mark.asyncio(loop_scope="session")


async def test_task_created_is_readable_at_its_location(ada: ApiUser) -> None:
    created = await ada.post("tasks", json={"title": "Buy milk", "due_at": "2026-03-01T09:00:00+02:00"})
    task = created.json()
    read = await ada.client.get(created.headers["location"], headers={"authorization": f"Bearer {ada.token}"})

    assert created.status_code == 201
    assert UUID(task.pop("id")).version == 7
    assert datetime.fromisoformat(task.pop("created_at")).tzinfo == UTC
    assert task.pop("updated_at")
    assert task == {
        "title": "Buy milk",
        "description": None,
        "due_at": "2026-03-01T07:00:00Z",
        "status": "pending",
        "version": 1,
        "conversation_id": None,
        "completed_at": None,
    }
    assert read.content == created.content
    assert read.headers["etag"] == created.headers["etag"] == '"1"'


async def test_task_pagination_is_newest_first_and_returns_each_item_once(ada: ApiUser) -> None:
    titles = [(await ada.create("tasks", title=f"number {number}"))["title"] for number in range(5)]
    first = (await ada.get("tasks", params={"limit": 2})).json()
    second = (await ada.get("tasks", params={"limit": 2, "cursor": first["next_cursor"]})).json()
    third = (await ada.get("tasks", params={"limit": 2, "cursor": second["next_cursor"]})).json()

    assert [len(page["items"]) for page in (first, second, third)] == [2, 2, 1]
    assert [task["title"] for page in (first, second, third) for task in page["items"]] == titles[::-1]
    assert third["next_cursor"] is None


async def test_task_pagination_full_last_page_has_no_cursor(ada: ApiUser) -> None:
    for number in range(2):
        await ada.create("tasks", title=f"number {number}")

    assert (await ada.get("tasks", params={"limit": 2})).json()["next_cursor"] is None


async def test_task_listing_filters_by_status(ada: ApiUser) -> None:
    done, open_ = await ada.create("tasks", title="done"), await ada.create("tasks", title="open")
    await ada.post(f"tasks/{done['id']}/complete")

    assert [task["id"] for task in await ada.list_items("tasks", status="completed")] == [done["id"]]
    assert [task["id"] for task in await ada.list_items("tasks", status="pending")] == [open_["id"]]
    assert len(await ada.list_items("tasks")) == 2


@pytest.mark.parametrize("media_type", ["application/merge-patch+json", "application/json"])
async def test_task_patch_keeps_omitted_fields_and_clears_null_fields(ada: ApiUser, media_type: str) -> None:
    task = await ada.create("tasks", title="Buy milk", description="two", due_at="2026-03-01T09:00:00Z")
    patched = await ada.patch(
        f"tasks/{task['id']}", content=b'{"description": null}', headers={"content-type": media_type}
    )
    changed = patched.json()

    assert (changed["title"], changed["description"], changed["due_at"]) == ("Buy milk", None, "2026-03-01T09:00:00Z")
    assert (changed["version"], patched.headers["etag"]) == (2, '"2"')
    assert changed["updated_at"] > task["updated_at"]


@pytest.mark.parametrize("patch", [{}, {"title": "Buy milk"}, {"status": "pending"}])
async def test_task_patch_without_a_change_keeps_the_version(ada: ApiUser, patch: dict[str, str]) -> None:
    task = await ada.create("tasks", title="Buy milk")

    assert (await ada.patch(f"tasks/{task['id']}", json=patch)).json() == task


@pytest.mark.parametrize("field", ["title", "status"])
async def test_task_patch_with_null_for_a_required_field_is_invalid(ada: ApiUser, field: str) -> None:
    task = await ada.create("tasks", title="Buy milk")
    refused = await ada.patch(f"tasks/{task['id']}", json={field: None})

    assert refused.status_code == 422
    assert refused.json()["errors"][0]["path"] == f"$.{field}"


async def test_task_complete_twice_is_idempotent_and_reopening_clears_the_time(ada: ApiUser) -> None:
    task = await ada.create("tasks", title="Buy milk")
    once = (await ada.post(f"tasks/{task['id']}/complete")).json()
    twice = (await ada.post(f"tasks/{task['id']}/complete")).json()
    reopened = (await ada.patch(f"tasks/{task['id']}", json={"status": "pending"})).json()

    assert once == twice
    assert (once["status"], once["version"]) == ("completed", 2)
    assert once["completed_at"] == once["updated_at"]
    assert (reopened["status"], reopened["completed_at"], reopened["version"]) == ("pending", None, 3)


async def test_task_deleted_is_not_found(ada: ApiUser) -> None:
    task = await ada.create("tasks", title="Buy milk")
    deleted = await ada.delete(f"tasks/{task['id']}")

    assert (deleted.status_code, deleted.content) == (204, b"")
    assert (await ada.get(f"tasks/{task['id']}")).status_code == 404
    assert (await ada.delete(f"tasks/{task['id']}")).status_code == 404
    assert await ada.list_items("tasks") == []


@pytest.mark.parametrize("tag", ['"1"', "*"])
async def test_task_write_with_current_etag_or_wildcard_succeeds(ada: ApiUser, tag: str) -> None:
    task = await ada.create("tasks", title="Buy milk")
    changed = await ada.patch(f"tasks/{task['id']}", json={"title": "Buy oats"}, headers={"if-match": tag})

    assert changed.json()["title"] == "Buy oats"


@pytest.mark.parametrize("tag", ['"2"', '"0"', '"one"', 'W/"1"', '""'])
async def test_task_write_with_stale_etag_is_a_conflict(ada: ApiUser, tag: str) -> None:
    """A weak tag never matches in `If-Match` (RFC 9110, 13.1.1)."""
    task = await ada.create("tasks", title="Buy milk")
    path, headers = f"tasks/{task['id']}", {"if-match": tag}
    refused = [
        await ada.patch(path, json={"title": "Buy oats"}, headers=headers),
        await ada.post(f"{path}/complete", headers=headers),
        await ada.delete(path, headers=headers),
    ]

    assert [(response.status_code, response.json()["code"]) for response in refused] == [(412, "stale-version")] * 3
    assert (await ada.get(path)).json() == task


@pytest.mark.parametrize("tag", ["1", '"1', '"1", "2"', ""])
async def test_task_write_with_malformed_etag_is_invalid(ada: ApiUser, tag: str) -> None:
    task = await ada.create("tasks", title="Buy milk")
    refused = await ada.patch(f"tasks/{task['id']}", json={"title": "Buy oats"}, headers={"if-match": tag})

    assert refused.status_code == 400
    assert "If-Match" in refused.json()["detail"]
    assert (await ada.get(f"tasks/{task['id']}")).json() == task


async def test_task_second_write_with_the_same_etag_is_a_conflict(ada: ApiUser) -> None:
    task = await ada.create("tasks", title="Buy milk")
    headers = {"if-match": '"1"'}
    first = await ada.patch(f"tasks/{task['id']}", json={"title": "first"}, headers=headers)
    second = await ada.patch(f"tasks/{task['id']}", json={"title": "second"}, headers=headers)

    assert (first.status_code, second.status_code) == (200, 412)
    assert (await ada.get(f"tasks/{task['id']}")).json()["title"] == "first"
