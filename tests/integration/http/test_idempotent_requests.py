"""Idempotency of requests that make something: sent again with its `Idempotency-Key`, a request has one effect."""

import asyncio
from typing import Any

import httpx2
import pytest

from tests.fakes.model_script import says
from tests.fakes.model_server import ModelServer
from tests.integration.http.idempotent_chat import send
from tests.support.service import ApiUser, Service

pytestmark = pytest.mark.asyncio(loop_scope="session")

KEY = {"idempotency-key": "k"}
TASK = {"title": "Buy milk \u2713"}
DOCUMENT = {"title": "Plan", "content_markdown": "# Plan \u2713"}
CREATIONS: list[tuple[str, dict[str, Any]]] = [("tasks", TASK), ("artifacts", DOCUMENT), ("conversations", {})]


@pytest.fixture
def ada(replicas: tuple[Service, Service]) -> ApiUser:
    return replicas[0].user()


def stored_parts(response: httpx2.Response) -> tuple[int, str | None, str | None, bytes]:
    headers = response.headers
    return response.status_code, headers.get("location"), headers.get("etag"), response.content


@pytest.mark.parametrize(("path", "body"), CREATIONS, ids=[path for path, _ in CREATIONS])
async def test_idempotency_retry_of_creation_gets_the_same_response(
    ada: ApiUser, ada_elsewhere: ApiUser, path: str, body: dict[str, Any]
) -> None:
    first = await ada.post(path, json=body, headers=KEY)
    quoted = {"idempotency-key": '"k"'}
    again = [await user.post(path, json=body, headers=quoted) for user in (ada, ada_elsewhere)]

    assert first.status_code == 201
    assert "idempotency-replayed" not in first.headers
    assert [stored_parts(response) for response in again] == [stored_parts(first)] * 2
    assert [response.headers["idempotency-replayed"] for response in again] == ["true"] * 2
    assert {response.headers["content-type"] for response in (first, *again)} == {"application/json"}
    assert len(await ada.list_items(path)) == 1


async def test_idempotency_key_makes_no_difference_to_the_response(ada: ApiUser) -> None:
    with_key, without = [await ada.post("tasks", json=TASK, headers=headers) for headers in (KEY, {})]

    assert with_key.headers.keys() == without.headers.keys()
    assert with_key.json().keys() == without.json().keys()
    assert (await ada.get(f"tasks/{with_key.json()['id']}")).content == with_key.content


@pytest.mark.parametrize(("path", "body"), CREATIONS, ids=[path for path, _ in CREATIONS])
async def test_idempotency_concurrent_duplicates_of_creation_have_one_effect(
    ada: ApiUser, ada_elsewhere: ApiUser, path: str, body: dict[str, Any]
) -> None:
    responses = await asyncio.gather(
        *(user.post(path, json=body, headers=KEY) for _ in range(3) for user in (ada, ada_elsewhere))
    )

    assert {stored_parts(response) for response in responses} == {stored_parts(responses[0])}
    assert responses[0].status_code == 201
    assert sum("idempotency-replayed" not in response.headers for response in responses) == 1
    assert len(await ada.list_items(path)) == 1


@pytest.mark.parametrize("headers", [KEY, {**KEY, "if-match": '"1"'}], ids=["plain", "if-match"])
async def test_idempotency_concurrent_duplicates_of_revision_add_one_version(
    ada: ApiUser, ada_elsewhere: ApiUser, headers: dict[str, str]
) -> None:
    """A duplicate that waited for the first one finds another version than `If-Match` demands, and is no 412."""
    artifact = await ada.create("artifacts", **DOCUMENT)
    path, revision = f"artifacts/{artifact['id']}", {"content_markdown": "# Second"}
    responses = await asyncio.gather(
        *(user.put(path, json=revision, headers=headers) for _ in range(3) for user in (ada, ada_elsewhere))
    )

    assert {stored_parts(response) for response in responses} == {stored_parts(responses[0])}
    assert responses[0].headers["etag"] == '"2"'
    assert len(await ada.list_items(f"{path}/versions")) == 2


async def test_idempotency_key_of_another_request_is_a_mismatch(ada: ApiUser) -> None:
    artifacts = [await ada.create("artifacts", **DOCUMENT) for _ in range(2)]
    await ada.put(f"artifacts/{artifacts[0]['id']}", json={"content_markdown": "# Second"}, headers=KEY)
    others = [
        await ada.put(f"artifacts/{artifacts[0]['id']}", json={"content_markdown": "# Third"}, headers=KEY),
        await ada.put(f"artifacts/{artifacts[1]['id']}", json={"content_markdown": "# Second"}, headers=KEY),
        await ada.post("tasks", json=TASK, headers=KEY),
        await ada.post("conversations", json={}, headers=KEY),
        await send(ada),
    ]

    assert [(other.status_code, other.json()["code"]) for other in others] == [(422, "idempotency-mismatch")] * 5
    assert await ada.list_items("tasks") == await ada.list_items("conversations") == []


async def test_idempotency_key_of_a_message_is_a_mismatch_for_a_task(ada: ApiUser, model: ModelServer) -> None:
    model.script += [says("Hello.")]
    await send(ada)
    response = await ada.post("tasks", json=TASK, headers=KEY)

    assert (response.status_code, response.json()["code"]) == (422, "idempotency-mismatch")
    assert await ada.list_items("tasks") == []


async def test_idempotency_key_is_scoped_to_its_user(ada: ApiUser, replicas: tuple[Service, Service]) -> None:
    bob = replicas[0].user()
    responses = [await user.post("tasks", json=TASK, headers=KEY) for user in (ada, bob)]

    assert ["idempotency-replayed" in response.headers for response in responses] == [False, False]
    assert len(await bob.list_items("tasks")) == 1


async def test_idempotency_key_of_a_failed_request_can_be_used_again(ada: ApiUser) -> None:
    """A failed request had no effect, so a retry is executed."""
    artifact = await ada.create("artifacts", **DOCUMENT)
    path, revision = f"artifacts/{artifact['id']}", {"content_markdown": "# Second"}
    stale = await ada.put(path, json=revision, headers={**KEY, "if-match": '"7"'})
    retried = await ada.put(path, json=revision, headers={**KEY, "if-match": '"1"'})

    assert (stale.status_code, retried.status_code) == (412, 200)


async def test_idempotency_retry_after_deletion_has_no_second_effect(ada: ApiUser) -> None:
    first = await ada.post("tasks", json=TASK, headers=KEY)
    await ada.delete(f"tasks/{first.json()['id']}")
    again = await ada.post("tasks", json=TASK, headers=KEY)

    assert stored_parts(again) == stored_parts(first)
    assert await ada.list_items("tasks") == []


async def test_idempotency_retry_of_message_after_deletion_of_its_conversation_is_a_conflict(
    ada: ApiUser, ada_elsewhere: ApiUser, model: ModelServer
) -> None:
    model.script += [says("It is on the list.")]
    answer = (await send(ada)).json()
    await ada.delete(f"conversations/{answer['conversation_id']}")
    late = [await send(user) for user in (ada, ada_elsewhere)]
    other = await send(ada, b'{"message": "Another"}')

    assert [(response.status_code, response.json()["code"]) for response in late] == [(409, "conflict")] * 2
    assert "deleted" in late[0].json()["detail"]
    assert (other.status_code, other.json()["code"]) == (422, "idempotency-mismatch")
    assert len(model.requests) == 1
    assert await ada.list_items("conversations") == []


@pytest.mark.parametrize("key", ["", '""', "x" * 256, '"k'])
async def test_invalid_idempotency_key_of_a_creation_is_malformed(ada: ApiUser, key: str) -> None:
    response = await ada.post("tasks", json=TASK, headers={"idempotency-key": key})

    assert response.status_code == 400
    assert await ada.list_items("tasks") == []


async def test_idempotency_key_for_a_context_token_is_refused(ada: ApiUser) -> None:
    """The response has a secret, which is not stored, so a retry could not get the same response."""
    response = await ada.post("context-tokens", json={"grants": ["tasks:read"]}, headers=KEY)

    assert response.status_code == 422
    assert response.json()["errors"][0]["path"] == "Idempotency-Key"
    assert await ada.list_items("context-tokens") == []
