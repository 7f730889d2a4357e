"""AG-UI clients that follow a turn which another process continues: they keep no text of a step that broke off."""

import asyncio
from asyncio import Event
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack

import pytest

from latchkey.application.turns import subscription
from tests.fakes.model_script import calls, says
from tests.fakes.model_server import ModelServer
from tests.integration.http.ag_ui.runs import (
    API,
    RunEvent,
    events_of,
    run,
    run_input,
    thread_messages,
    types,
    user_message,
)
from tests.support.service import ApiUser, Service, run_service
from tests.support.streamed_data import read_until

pytestmark = pytest.mark.asyncio(loop_scope="session")

MILK = calls(("add_task", '{"title": "Milk"}'), saying=("Adding. ",))


@pytest.fixture
def reader(replicas: tuple[Service, Service], monkeypatch: pytest.MonkeyPatch) -> ApiUser:
    monkeypatch.setattr(subscription, "KEEPALIVE_S", 0.05)
    monkeypatch.setattr(subscription, "LEASE_CHECK_S", 0.05)
    return replicas[1].user()


async def follow_until_stop(
    service: Service, reader: ApiUser, model: ModelServer, stack: AsyncExitStack
) -> tuple[list[RunEvent], AsyncIterator[str]]:
    """Start a turn at another replica that stops in the second step of the turn.

    Returns the events that the reader has received up to there, and its open stream.
    """
    async with run_service(service.settings) as stopping:
        sender = stopping.user(reader.user_id)
        await run(sender, run_input("t1", user_message("Hi", "m1")))
        body = run_input("t1", user_message("Add milk", "m2"), run_id="r2")
        sending = asyncio.create_task(sender.post(API, json=body))
        await model.wait_for_requests(3)
        response = await stack.enter_async_context(reader.stream("POST", API, json=run_input("t1")))
        lines = response.aiter_lines()
        events = await read_until(lines, "TOOL_CALL_RESULT") + await read_until(lines, "TEXT_MESSAGE_CONTENT")
        sending.cancel()
    return events, lines


async def test_follower_of_a_turn_that_is_handed_over_gets_the_thread_without_withdrawn_text(
    replicas: tuple[Service, Service], reader: ApiUser, model: ModelServer, gate: Event
) -> None:
    model.script += [says("Hello."), MILK, says("I will nev").held(gate), says("Added.")]
    async with AsyncExitStack() as stack:
        before, lines = await follow_until_stop(replicas[0], reader, model, stack)
        after = await read_until(lines, "RUN_FINISHED")
    stored = await thread_messages(reader, "t1")

    assert before[-1]["delta"] == "I will nev"
    assert types(after) == [
        "TEXT_MESSAGE_END",
        "MESSAGES_SNAPSHOT",
        "TEXT_MESSAGE_START",
        "TEXT_MESSAGE_CONTENT",
        "TEXT_MESSAGE_END",
        "RUN_FINISHED",
    ]
    assert [message["id"] for message in stored if message["role"] == "user"] == ["m1", "m2"]
    assert after[1]["messages"] == stored[:-1]
    assert stored[-1] == {"id": after[2]["messageId"], "role": "assistant", "content": "Added."}
    assert len(await reader.list_items("tasks")) == 1


async def test_run_of_a_turn_that_went_on_has_no_withdrawn_text_after_any_event(
    replicas: tuple[Service, Service], reader: ApiUser, model: ModelServer, gate: Event
) -> None:
    model.script += [says("Hello."), MILK, says("I will nev").held(gate), says("Added.")]
    async with AsyncExitStack() as stack:
        _, lines = await follow_until_stop(replicas[0], reader, model, stack)
        received = [line async for line in lines if line.startswith("id: ")]
    whole = events_of(await reader.get(API, params={"runId": "r2"}))
    after_withdrawn = f"{int(received[0].removeprefix('id: ').split('.')[0]) - 1}.1"
    resumed = events_of(await reader.get(API, params={"runId": "r2"}, headers={"last-event-id": after_withdrawn}))
    stored = await thread_messages(reader, "t1")

    assert "".join(event.get("delta", "") for event in whole) == 'Adding. {"title":"Milk"}Added.'
    assert "MESSAGES_SNAPSHOT" not in types(whole)
    assert types(resumed)[:2] == ["TEXT_MESSAGE_END", "MESSAGES_SNAPSHOT"]
    assert resumed[1]["messages"] == stored[:-1]
