"""Idempotency keys: their syntax, their scope (one user), and which messages count as the same."""

from asyncio import Event
from typing import Any
from uuid import uuid4

import httpx2
import pytest

from tests.fakes.model_script import says
from tests.fakes.model_server import ModelServer
from tests.integration.http.idempotent_chat import BODY, KEY, send
from tests.support.event_stream import stream_chat
from tests.support.service import ApiUser, Service

pytestmark = pytest.mark.asyncio(loop_scope="session")

EVENTS = {"accept": "text/event-stream"}


@pytest.fixture
def ada(replicas: tuple[Service, Service]) -> ApiUser:
    return replicas[0].user()


OTHERS: dict[str, dict[str, Any]] = {
    "another message": {"message": "Buy milk."},
    "another kind of turn": {"message": "Buy milk", "artifact_generation": True},
    "another conversation": {"message": "Buy milk", "conversation_id": str(uuid4())},
}


@pytest.mark.parametrize("body", OTHERS.values(), ids=OTHERS)
async def test_idempotency_key_with_another_message_is_a_mismatch(
    ada: ApiUser, ada_elsewhere: ApiUser, model: ModelServer, body: dict[str, Any]
) -> None:
    """During the first turn and after it."""
    release = Event()
    model.script += [says("Hel").held(release)]
    async with stream_chat(ada, "Buy milk", headers=KEY) as source:
        await source.next()
        meanwhile = await ada_elsewhere.post("chat", json=body, headers=KEY)
        release.set()
        await source.rest()
    refused = [meanwhile, await ada.post("chat", json=body, headers={**KEY, **EVENTS})]

    assert [(response.status_code, response.json()["code"]) for response in refused] == [
        (422, "idempotency-mismatch")
    ] * 2
    assert len(await ada.list_items("conversations")) == len(model.requests) == 1


SAME = [
    b'{"message":"Buy milk"}',
    b' {\n\t"message" : "Buy\\u0020milk" } ',
    b'{"conversation_id": null, "message": "Buy milk", "artifact_generation": false}',
    b'{"artifact_generation": false, "message": "Buy milk"}',
]


@pytest.mark.parametrize("body", SAME)
async def test_idempotency_key_with_equivalent_json_is_a_replay(ada: ApiUser, model: ModelServer, body: bytes) -> None:
    model.script += [says("Once.")]
    first, again = await send(ada), await send(ada, body)

    assert (again.status_code, again.content) == (200, first.content)


FORMS = {
    "k": ["k", '"k"'],
    'k"\\': ['k"\\', '"k\\"\\\\"'],
    "x" * 255: ["x" * 255, f'"{"x" * 255}"'],
    "a b": ['"a b"'],
}


@pytest.mark.parametrize("forms", FORMS.values(), ids=["short", "escaped", "longest", "spaced"])
async def test_idempotency_key_may_be_quoted_or_bare(ada: ApiUser, model: ModelServer, forms: list[str]) -> None:
    model.script += [says("Once.")]
    sent = [await send(ada, headers={"idempotency-key": form}) for form in (*forms, *forms)]

    assert {(response.status_code, response.content) for response in sent} == {(200, sent[0].content)}
    assert len(model.requests) == 1


@pytest.mark.parametrize(
    "key", ["", '""', '"', '"k', "two words", "x" * 256, f'"{"x" * 256}"', "sch\u00f6n", "\u00a0", "a\tb"]
)
async def test_idempotency_key_that_is_invalid_starts_no_turn(ada: ApiUser, model: ModelServer, key: str) -> None:
    headers = [(b"idempotency-key", key.encode("latin-1"))]
    refused = await raw_post(ada, headers)

    assert (refused.status_code, refused.json()["code"]) == (400, "invalid")
    assert "Idempotency-Key" in refused.json()["detail"]
    assert model.requests == []


async def test_idempotency_key_isolation_between_users(
    replicas: tuple[Service, Service], ada: ApiUser, model: ModelServer
) -> None:
    model.script += [says("To Ada."), says("To Bob.")]
    bob = replicas[1].user()
    answers = [(await send(user)).json()["response"] for user in (ada, bob, ada, bob)]

    assert answers == ["To Ada.", "To Bob."] * 2


async def raw_post(user: ApiUser, headers: list[tuple[bytes, bytes]]) -> httpx2.Response:
    """Send headers that no HTTP client library would send."""
    given = [(b"authorization", f"Bearer {user.token}".encode()), (b"content-type", b"application/json"), *headers]
    return await user.client.post(user.path("chat"), content=BODY, headers=given)
