"""Turns that replace others (edit, regenerate, retry), and messages that interrupt a running turn."""

import asyncio
from asyncio import Event
from typing import Any
from uuid import uuid4

import pytest

from tests.fakes.model_script import calls, says
from tests.fakes.model_server import ModelServer
from tests.support.service import ApiUser, Service

pytestmark = pytest.mark.asyncio(loop_scope="session")


@pytest.fixture
def ada(model_service: Service) -> ApiUser:
    return model_service.user()


async def chats(user: ApiUser, model: ModelServer, *messages: str) -> list[dict[str, Any]]:
    """Send messages in one conversation and return the answers: each message in capitals."""
    answers: list[dict[str, Any]] = []
    for message in messages:
        model.script += [says(message.upper())]
        conversation = answers[0]["conversation_id"] if answers else None
        answers.append(await user.chat(message, conversation_id=conversation))
    return answers


async def contents(user: ApiUser, conversation_id: str, **params: Any) -> list[str]:
    items = await user.list_items(f"conversations/{conversation_id}/messages", **params)
    return [item["content"] for item in items]


async def test_replaced_turns_are_left_out_of_history_and_messages(ada: ApiUser, model: ModelServer) -> None:
    first, second, third = await chats(ada, model, "one", "two", "three")
    model.script += [says("ZWEI"), says("VIER")]
    edited = await ada.chat("zwei", conversation_id=first["conversation_id"], replaces=second["turn_id"])
    history = model.requests[-1].conversation[1:]
    await ada.chat("vier", conversation_id=first["conversation_id"])

    assert history == [("user", "one"), ("assistant", "ONE"), ("user", "zwei")]
    assert [text for _, text in model.requests[-1].conversation[1:]] == ["one", "ONE", "zwei", "ZWEI", "vier"]
    assert edited["message"]["seq"] == 8
    active = ["one", "ONE", "zwei", "ZWEI", "vier", "VIER"]
    assert await contents(ada, first["conversation_id"]) == active
    assert await contents(ada, first["conversation_id"], order="desc") == active[::-1]
    everything = await contents(ada, first["conversation_id"], replaced="true")
    assert everything == ["one", "ONE", "two", "TWO", "three", "THREE", "zwei", "ZWEI", "vier", "VIER"]
    assert await contents(ada, first["conversation_id"], replaced="true", order="desc") == everything[::-1]
    turns = await ada.list_items(f"conversations/{first['conversation_id']}/turns")
    replaced_by = {turn["id"]: turn["replaced_by"] for turn in turns}
    assert replaced_by[second["turn_id"]] == replaced_by[third["turn_id"]] == edited["turn_id"]
    assert [*replaced_by.values()].count(None) == 3


async def test_replaced_turn_may_be_replaced_again(ada: ApiUser, model: ModelServer) -> None:
    """A retry of a replaced turn replaces the turn that took its place."""
    first, second = await chats(ada, model, "one", "two")
    model.script += [says("A"), says("B")]
    conversation = first["conversation_id"]
    a = await ada.chat("a", conversation_id=conversation, replaces=second["turn_id"])
    b = await ada.chat("b", conversation_id=conversation, replaces=second["turn_id"])

    assert await contents(ada, conversation) == ["one", "ONE", "b", "B"]
    assert (await ada.get(f"turns/{second['turn_id']}")).json()["replaced_by"] == a["turn_id"]
    assert (await ada.get(f"turns/{a['turn_id']}")).json()["replaced_by"] == b["turn_id"]


async def test_replaced_first_turn_leaves_an_empty_history_and_the_effects_of_its_tools(
    ada: ApiUser, model: ModelServer
) -> None:
    model.script += [calls(("add_task", '{"title": "Buy milk"}')), says("Added."), says("Again.")]
    first = await ada.chat("Buy milk")
    again = await ada.chat("Hello", replaces=first["turn_id"])

    assert again["conversation_id"] == first["conversation_id"]
    assert model.requests[-1].conversation[1:] == [("user", "Hello")]
    assert [task["title"] for task in await ada.list_items("tasks")] == ["Buy milk"]


async def test_replaced_turn_of_another_conversation_is_invalid(ada: ApiUser, model: ModelServer) -> None:
    first, second = (await chats(ada, model, "one"))[0], (await chats(ada, model, "two"))[0]
    body = {"message": "x", "conversation_id": first["conversation_id"], "replaces": second["turn_id"]}
    response = await ada.post("chat", json=body)

    assert response.status_code == 422
    assert [error["path"] for error in response.json()["errors"]] == ["$.replaces"]


async def test_replaced_turn_of_another_conversation_than_a_new_name_is_invalid(
    ada: ApiUser, model: ModelServer
) -> None:
    """An unused name names a new conversation, which has no turns."""
    (turn,) = await chats(ada, model, "one")
    body = {"message": "x", "client_conversation_id": "new", "replaces": turn["turn_id"]}
    response = await ada.post("chat", json=body)

    assert response.status_code == 422
    assert [error["path"] for error in response.json()["errors"]] == ["$.replaces"]
    assert await contents(ada, turn["conversation_id"]) == ["one", "ONE"]


async def test_replaced_turn_of_another_user_or_an_unknown_one_is_not_found(
    ada: ApiUser, model_service: Service, model: ModelServer
) -> None:
    (of_ada,) = await chats(ada, model, "one")
    bob = model_service.user()
    responses = [
        await bob.post("chat", json={"message": "x", "replaces": id}) for id in (of_ada["turn_id"], str(uuid4()))
    ]

    assert [response.status_code for response in responses] == [404, 404]
    assert await bob.list_items("conversations") == []
    assert await contents(ada, of_ada["conversation_id"]) == ["one", "ONE"]


async def test_replaced_turn_that_is_running_is_in_progress_unless_it_is_interrupted(
    ada: ApiUser, model: ModelServer
) -> None:
    release = Event()
    model.script += [says("One.").held(release), says("Two.")]
    running = asyncio.create_task(ada.post("chat", json={"message": "one", "client_conversation_id": "c"}))
    await model.wait_for_requests()
    (conversation,) = await ada.list_items("conversations")
    (turn,) = await ada.list_items(f"conversations/{conversation['id']}/turns")
    body = {"message": "two", "replaces": turn["id"]}
    refused = await ada.post("chat", json=body)
    answer = await ada.chat(**body, when_busy="interrupt")
    cancelled = await running
    release.set()

    assert (refused.status_code, refused.json()["code"]) == (409, "turn-in-progress")
    assert (cancelled.status_code, cancelled.json()["code"]) == (409, "turn-cancelled")
    assert answer["response"] == "Two."
    assert await contents(ada, conversation["id"]) == ["two", "Two."]


async def test_interrupting_message_cancels_the_running_turn_of_its_conversation_alone(
    ada: ApiUser, model: ModelServer
) -> None:
    release = Event()
    model.script += [says("One.").held(release), says("Other.").held(release), says("Two.")]
    first = asyncio.create_task(ada.post("chat", json={"message": "one", "client_conversation_id": "c"}))
    await model.wait_for_requests()
    other = asyncio.create_task(ada.post("chat", json={"message": "other", "client_conversation_id": "d"}))
    await model.wait_for_requests(2)
    answer = await ada.chat("two", client_conversation_id="c", when_busy="interrupt")
    cancelled = await first
    release.set()

    assert cancelled.json()["code"] == "turn-cancelled"
    assert answer["conversation_id"] == cancelled.json()["conversation_id"]
    assert (await other).json()["response"] == "Other."
    assert await contents(ada, answer["conversation_id"]) == ["one", "two", "Two."]
    assert model.requests[-1].conversation[1:] == [("user", "one"), ("user", "two")]


async def test_interrupting_message_that_is_refused_cancels_nothing(ada: ApiUser, model: ModelServer) -> None:
    """Cancelling and starting are one transaction."""
    release = Event()
    model.script += [says("One.").held(release)]
    first = asyncio.create_task(ada.post("chat", json={"message": "one", "client_conversation_id": "c"}))
    await model.wait_for_requests()
    body = {"message": "two", "client_conversation_id": "c", "when_busy": "interrupt", "assistant": "nobody"}
    refused = await ada.post("chat", json=body)
    release.set()

    assert refused.status_code == 422
    assert (await first).json()["response"] == "One."


async def test_interrupting_message_with_an_unknown_choice_is_invalid(ada: ApiUser) -> None:
    response = await ada.post("chat", json={"message": "two", "when_busy": "wait"})

    assert response.status_code == 422
    assert [error["path"] for error in response.json()["errors"]] == ["$.when_busy"]
