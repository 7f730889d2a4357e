"""Turns that another process continues, with OpenAI's SDK: text of the step that broke off is withdrawn."""

import asyncio
from asyncio import Event
from typing import Any

import openai
import pytest

from tests.fakes.model_script import calls, says
from tests.fakes.model_server import ModelServer
from tests.support.openai_sdk import plain, sdk_of, text_of
from tests.support.service import Service, run_service

pytestmark = pytest.mark.asyncio(loop_scope="session")

MILK = calls(("add_task", '{"title": "Milk"}'), saying=("Adding.",))
HELD = "I will nev"


async def test_stream_continues_with_another_item_where_text_is_withdrawn(
    replicas: tuple[Service, Service], model: ModelServer, gate: Event
) -> None:
    model.script += [MILK, says(HELD).held(gate), says("Added.")]
    received: list[Any] = []
    async with run_service(replicas[0].settings, on_socket=True) as stopping:
        user = stopping.user()
        created = await sdk_of(user).responses.create(input="Hello", background=True)
        reader = sdk_of(replicas[1].user(user.user_id))
        events = await reader.responses.retrieve(created.id, stream=True)
        async for event in events:
            received.append(event)
            if getattr(event, "delta", "") == f"\n\n{HELD}":
                break
    received += [event async for event in events]
    replay: list[Any] = [event async for event in await reader.responses.retrieve(created.id, stream=True)]
    resumed = await reader.responses.retrieve(created.id, stream=True, starting_after=received[-2].sequence_number)
    last: Any = received[-1]
    done = [event.text for event in received if event.type == "response.output_text.done"]
    deltas = [event.delta for event in replay if event.type == "response.output_text.delta"]

    assert [item.type for item in last.response.output] == ["message", "mcp_call", "message"]
    assert last.response.output_text == "Adding.\n\nAdded."
    assert done == ["Adding.", "", "\n\nAdded."]
    assert "".join(deltas) == last.response.output_text
    assert plain(last.response) == plain(replay[-1].response) == plain(await reader.responses.retrieve(created.id))
    assert [event.sequence_number for event in received] == list(range(len(received)))
    assert {event.sequence_number for event in replay} < {event.sequence_number for event in received}
    assert [event async for event in resumed] == received[-1:]
    items = [item async for item in reader.conversations.items.list(created.conversation.id, order="asc")]  # type: ignore[union-attr]
    assert [text_of(item) for item in items if item.type == "message"] == ["Hello", "Adding.", "\n\nAdded."]


@pytest.mark.parametrize("key", [None, "key-1"], ids=["without_key", "with_key"])
async def test_client_that_waits_when_its_process_stops_does_not_send_its_message_twice(
    replicas: tuple[Service, Service], model: ModelServer, gate: Event, key: str | None
) -> None:
    """With an idempotency key it may send it again, and gets the same response."""
    model.script += [says(HELD).held(gate), says("Hello, Ada.")]
    headers = {"Idempotency-Key": key} if key else {}
    async with run_service(replicas[0].settings) as stopping:
        user = stopping.user()
        sdk = sdk_of(user).with_options(max_retries=0)
        post = asyncio.create_task(sdk.responses.create(input="Hello", extra_headers=headers))
        await model.wait_for_requests(1)
    with pytest.raises(openai.InternalServerError) as failure:
        await post
    elsewhere = sdk_of(replicas[1].user(user.user_id))

    assert (failure.value.status_code, failure.value.code) == (503, "draining")
    if key:
        assert "x-should-retry" not in failure.value.response.headers
        response = await elsewhere.responses.create(input="Hello", extra_headers=headers)
    else:
        assert failure.value.response.headers["x-should-retry"] == "false"
        id = failure.value.message.split("`")[1]
        events: list[Any] = [event async for event in await elsewhere.responses.retrieve(id, stream=True)]
        response = events[-1].response
    assert (response.status, response.output_text) == ("completed", "Hello, Ada.")
    assert len(await replicas[1].user(user.user_id).list_items("conversations")) == 1
