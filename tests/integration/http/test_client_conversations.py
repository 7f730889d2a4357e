"""Conversations that the client names: the first message with a name starts the conversation."""

import asyncio
from asyncio import Event
from uuid import uuid4

import pytest

from tests.fakes.model_script import says
from tests.fakes.model_server import ModelServer
from tests.support.service import ApiUser, Service

pytestmark = pytest.mark.asyncio(loop_scope="session")


@pytest.fixture
def ada(model_service: Service) -> ApiUser:
    return model_service.user()


async def test_client_conversation_is_created_by_the_first_message_and_used_by_later_ones(
    ada: ApiUser, model: ModelServer
) -> None:
    model.script += [says("One."), says("Two.")]
    first = await ada.chat("one", client_conversation_id="chat 7")
    second = await ada.chat("two", client_conversation_id="chat 7")
    (conversation,) = await ada.list_items("conversations")

    assert first["conversation_id"] == second["conversation_id"] == conversation["id"]
    assert conversation["client_conversation_id"] == "chat 7"
    assert model.requests[-1].conversation[1:] == [("user", "one"), ("assistant", "One."), ("user", "two")]


async def test_client_conversation_of_concurrent_first_messages_is_one(ada: ApiUser, model: ModelServer) -> None:
    release = Event()
    model.script += [says("Hello.").held(release)] * 2
    body = {"message": "hello", "client_conversation_id": "chat-8"}
    racing = [asyncio.create_task(ada.post("chat", json=body)) for _ in range(4)]
    await model.wait_for_requests()
    done, _ = await asyncio.wait(racing, return_when=asyncio.FIRST_COMPLETED)
    release.set()
    statuses = sorted(response.status_code for response in await asyncio.gather(*racing))

    assert {task.result().json()["code"] for task in done} == {"turn-in-progress"}
    assert statuses == [200, 409, 409, 409]
    assert len(await ada.list_items("conversations")) == 1


async def test_client_conversation_name_may_be_the_id_of_a_conversation(ada: ApiUser, model: ModelServer) -> None:
    model.script += [says("One."), says("Two."), says("Three.")]
    conversation = await ada.create("conversations", title="Groceries")
    unknown = str(uuid4())
    by_id = await ada.chat("one", client_conversation_id=conversation["id"])
    in_capitals = await ada.chat("two", client_conversation_id=conversation["id"].upper())
    new = await ada.chat("three", client_conversation_id=unknown)

    assert by_id["conversation_id"] == in_capitals["conversation_id"] == conversation["id"]
    assert new["conversation_id"] not in {conversation["id"], unknown}


async def test_client_conversation_name_of_another_user_is_another_conversation(
    ada: ApiUser, model_service: Service, model: ModelServer
) -> None:
    model.script += [says("One."), says("Two."), says("Three.")]
    bob = model_service.user()
    of_ada = await ada.chat("one", client_conversation_id="chat-9")
    of_bob = await bob.chat("two", client_conversation_id="chat-9")
    by_id = await bob.chat("three", client_conversation_id=of_ada["conversation_id"])

    assert len({answer["conversation_id"] for answer in (of_ada, of_bob, by_id)}) == 3
    assert model.requests[-1].conversation[1:] == [("user", "three")]


async def test_client_conversation_name_is_free_after_deletion(ada: ApiUser, model: ModelServer) -> None:
    model.script += [says("One."), says("Two.")]
    first = await ada.chat("one", client_conversation_id="chat-10")
    await ada.delete(f"conversations/{first['conversation_id']}")
    second = await ada.chat("two", client_conversation_id="chat-10")

    assert first["conversation_id"] != second["conversation_id"]
    assert model.requests[-1].conversation[1:] == [("user", "two")]


@pytest.mark.parametrize("name", ["", "a" * 256, "a\nb", "a\x7fb", "a\x00b", 5, ["a"]], ids=repr)
async def test_client_conversation_name_that_is_not_printable_or_too_long_is_invalid(
    ada: ApiUser, name: object
) -> None:
    response = await ada.post("chat", json={"message": "hello", "client_conversation_id": name})

    assert (response.status_code, response.json()["code"]) == (422, "invalid")
    assert [error["path"] for error in response.json()["errors"]] == ["$.client_conversation_id"]


async def test_client_conversation_name_beside_an_id_is_invalid(ada: ApiUser) -> None:
    conversation = await ada.create("conversations")
    body = {"message": "hello", "client_conversation_id": "a", "conversation_id": conversation["id"]}
    response = await ada.post("chat", json=body)

    assert response.status_code == 422
    assert response.json()["errors"][0]["path"] == "$.client_conversation_id"
