"""Conversations, items and models of OpenAI's API with OpenAI's SDK."""

from asyncio import Event
from typing import Any

import openai
import pytest
from openai import AsyncOpenAI

from tests.fakes.model_script import calls, fails, says
from tests.fakes.model_server import ModelServer
from tests.support.openai_sdk import conversation_of, plain, sdk_of, text_of
from tests.support.service import ApiUser, Service

pytestmark = pytest.mark.asyncio(loop_scope="session")

MILK = ("add_task", '{"title": "Buy milk"}')
ASSISTANTS = """
[assistant.shop]
instructions = "Sell bicycles."
"""


@pytest.fixture
def ada(assistants_service: Service) -> ApiUser:
    return assistants_service.user()


@pytest.fixture
def sdk(ada: ApiUser) -> AsyncOpenAI:
    return sdk_of(ada)


async def test_conversation_is_created_renamed_and_deleted(ada: ApiUser, sdk: AsyncOpenAI) -> None:
    untitled = await sdk.conversations.create()
    created = await sdk.conversations.create(metadata={"title": "Groceries", "topic": "not stored"})
    shown = await sdk.conversations.retrieve(created.id)
    renamed = await sdk.conversations.update(created.id, metadata={"title": "Breakfast"})
    unchanged = await sdk.conversations.update(created.id, metadata={"topic": "not stored"})
    cleared = await sdk.conversations.update(created.id, metadata={"title": ""})
    deleted = await sdk.conversations.delete(created.id)
    (left,) = await ada.list_items("conversations")

    assert (untitled.object, untitled.metadata, shown.metadata) == ("conversation", {}, {"title": "Groceries"})
    assert renamed.metadata == unchanged.metadata == {"title": "Breakfast"}
    assert cleared.metadata == {}
    assert (deleted.id, deleted.deleted, deleted.object) == (created.id, True, "conversation.deleted")
    assert left["id"].replace("-", "") == untitled.id.removeprefix("conv_")
    with pytest.raises(openai.NotFoundError):
        await sdk.conversations.retrieve(created.id)
    with pytest.raises(openai.NotFoundError):
        await sdk.conversations.items.list(created.id)


async def test_repeated_idempotency_key_creates_one_conversation(ada: ApiUser, sdk: AsyncOpenAI) -> None:
    headers = {"Idempotency-Key": "key-1"}
    first, second = [
        await sdk.conversations.create(metadata={"title": "Groceries"}, extra_headers=headers) for _ in range(2)
    ]

    assert first == second
    assert len(await ada.list_items("conversations")) == 1
    with pytest.raises(openai.UnprocessableEntityError):
        await sdk.conversations.create(metadata={"title": "Other"}, extra_headers=headers)


async def test_first_message_goes_to_conversation_that_was_created_empty(sdk: AsyncOpenAI, model: ModelServer) -> None:
    model.script += [says("Hello.")]
    conversation = await sdk.conversations.create()

    empty = await sdk.conversations.items.list(conversation.id)
    response = await sdk.responses.create(input="Hello", conversation=conversation.id)

    assert (empty.data, empty.has_more) == ([], False)
    assert conversation_of(response) == conversation.id


@pytest.mark.parametrize("order", ["asc", "desc"])
@pytest.mark.parametrize("limit", [1, 2, 3, 20])
async def test_pagination_of_items_returns_messages_and_outputs_of_all_turns(
    sdk: AsyncOpenAI, model: ModelServer, order: Any, limit: int
) -> None:
    model.script += [calls(MILK, saying=("I add it.",)), says("Done."), fails(401), says("Again.")]
    first = await sdk.responses.create(input="Buy milk")
    conversation_id = conversation_of(first)
    failed = await sdk.responses.create(input="Fail", conversation=conversation_id)
    last = await sdk.responses.create(input="Again", conversation=conversation_id)
    outputs = [plain(response)["output"] for response in (first, failed, last)]

    items = [plain(item) async for item in sdk.conversations.items.list(conversation_id, order=order, limit=limit)]
    if order == "desc":
        items.reverse()

    users = [items[index] for index in (0, 4, 5)]
    assert [user["content"][0]["text"] for user in users] == ["Buy milk", "Fail", "Again"]
    assert [user["role"] for user in users] == ["user", "user", "user"]
    assert items == [users[0], *outputs[0], users[1], users[2], *outputs[2]]
    assert outputs[1] == []


async def test_items_of_running_turn_are_the_message_of_the_user(
    sdk: AsyncOpenAI, model: ModelServer, gate: Event
) -> None:
    model.script += [says("Half").held(gate)]
    running = await sdk.responses.create(input="Hello", background=True)
    await model.wait_for_requests()

    page = await sdk.conversations.items.list(conversation_of(running))

    assert [text_of(item) for item in page.data] == ["Hello"]
    assert page.has_more is False


async def test_items_after_unknown_item_are_404(sdk: AsyncOpenAI, model: ModelServer) -> None:
    model.script += [says("Hello."), says("Hello.")]
    first = await sdk.responses.create(input="Hello")
    other = await sdk.responses.create(input="Hello")

    for after in ("msg_1", plain(other)["output"][0]["id"], f"msg_{'f' * 32}", f"mcp_{'0' * 32}", first.id):
        with pytest.raises(openai.NotFoundError):
            await sdk.conversations.items.list(conversation_of(first), after=after)


async def test_model_name_chooses_assistant_of_new_conversation(
    ada: ApiUser, sdk: AsyncOpenAI, model: ModelServer
) -> None:
    model.script += [says("Buy one.")] * 4
    models = [each.id async for each in sdk.models.list()]

    shop = await sdk.responses.create(input="Hello", model="shop")
    continued = await sdk.responses.create(input="Hello", model="gpt-5", previous_response_id=shop.id)
    by_header = await sdk.responses.create(input="Hello", model="gpt-5", extra_headers={"Latchkey-Assistant": "shop"})
    default = await sdk.responses.create(input="Hello", model="latchkey")

    assert models == ["latchkey", "default", "shop"]
    assert (await sdk.models.retrieve("shop")).owned_by == "latchkey"
    assert [each.model for each in (shop, continued, by_header, default)] == ["shop", "shop", "shop", "latchkey"]
    with pytest.raises(openai.UnprocessableEntityError):
        await sdk.responses.create(input="Hello", model="shop", conversation=conversation_of(default))
    with pytest.raises(openai.UnprocessableEntityError):
        await sdk.responses.create(input="Hello", extra_headers={"Latchkey-Assistant": "none"})
    with pytest.raises(openai.NotFoundError):
        await sdk.models.retrieve("gpt-5")
