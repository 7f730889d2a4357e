"""Idempotency: a message sent again with its `Idempotency-Key` runs once and gets the first response."""

import asyncio
from asyncio import Event

import httpx2
import pytest

from tests.fakes.model_script import calls, says
from tests.fakes.model_server import ModelServer
from tests.integration.http.idempotent_chat import KEY, send, stream
from tests.polling import wait_until
from tests.support.event_stream import event_names, raw_bytes, stream_chat
from tests.support.service import ApiUser, Service, model_variables, run_service, settings_for

pytestmark = [pytest.mark.asyncio(loop_scope="session"), pytest.mark.usefixtures("without_polling")]

MILK = calls(("add_task", '{"title": "Buy milk"}'))
EVENTS = {"accept": "text/event-stream"}


@pytest.fixture
def ada(replicas: tuple[Service, Service]) -> ApiUser:
    return replicas[0].user()


async def test_idempotency_retry_gets_the_same_bytes(ada: ApiUser, ada_elsewhere: ApiUser, model: ModelServer) -> None:
    model.script += [MILK, says("It is on the list. \u2713")]
    first = await send(ada)
    again = [await send(user) for user in (ada, ada_elsewhere, ada)]

    assert first.status_code == 200
    assert "idempotency-replayed" not in first.headers
    assert {(response.status_code, response.content) for response in again} == {(200, first.content)}
    assert [response.headers["idempotency-replayed"] for response in again] == ["true"] * 3
    assert len(model.requests) == 2
    assert len(await ada.list_items("tasks")) == 1


async def test_idempotency_retry_of_a_stream_gets_the_same_events(
    ada: ApiUser, ada_elsewhere: ApiUser, model: ModelServer
) -> None:
    model.script += [MILK, says("It is ", "on the list.")]
    streams = [await stream(user) for user in (ada, ada_elsewhere, ada)]

    assert [replayed for replayed, _ in streams] == [None, "true", "true"]
    assert len({events for _, events in streams}) == 1
    assert len(model.requests) == 2


@pytest.mark.parametrize("first", ["json", "stream"])
async def test_idempotency_retry_may_ask_for_json_or_events(
    ada: ApiUser, ada_elsewhere: ApiUser, model: ModelServer, first: str
) -> None:
    model.script += [MILK, says("It is on the list.")]
    if first == "json":
        answers = [await send(ada), await send(ada_elsewhere)]
        streams = [await stream(ada), await stream(ada_elsewhere)]
    else:
        streams = [await stream(ada), await stream(ada_elsewhere)]
        answers = [await send(ada), await send(ada_elsewhere)]

    assert answers[0].content == answers[1].content
    assert streams[0][1] == streams[1][1]
    assert f'"message_id":"{answers[0].json()["message"]["id"]}"'.encode() in streams[0][1]
    assert len(model.requests) == 2


async def test_idempotency_retry_during_the_turn_is_in_progress(
    ada: ApiUser, ada_elsewhere: ApiUser, model: ModelServer
) -> None:
    release = Event()
    model.script += [says("Hel").held(release)]
    async with stream_chat(ada, "Buy milk", headers=KEY) as source:
        started = await source.next()
        turn_id, conversation_id = started.data["turn_id"], started.data["conversation_id"]
        refused = [await send(ada), await send(ada_elsewhere)]
        body = {"message": "Buy milk", "conversation_id": conversation_id}
        other = await ada_elsewhere.post("chat", json=body, headers={**EVENTS, "idempotency-key": "another"})
        release.set()
        await source.rest()
    problems = [response.json() for response in (*refused, other)]

    assert [(response.status_code, response.json()["code"]) for response in (*refused, other)] == [
        (409, "turn-in-progress")
    ] * 3
    assert {(item["turn_id"], item["conversation_id"]) for item in problems} == {(turn_id, conversation_id)}
    assert [item.get("same_request") for item in problems] == [True, True, None]
    assert (await send(ada_elsewhere)).json()["response"] == "Hel"


async def test_idempotency_retry_of_a_stream_during_the_turn_joins_it(
    ada: ApiUser, ada_elsewhere: ApiUser, model: ModelServer
) -> None:
    """On both replicas, from the first event to the last."""
    release = Event()
    model.script += [MILK, says("It is on the list.").held(release)]
    async with (
        stream_chat(ada, "Buy milk", headers=KEY) as first,
        stream_chat(ada, "Buy milk", headers=KEY) as here,
        stream_chat(ada_elsewhere, "Buy milk", headers=KEY) as there,
    ):
        release.set()
        streams = [await source.rest() for source in (first, here, there)]

    assert event_names(streams[0])[-1] == "turn.completed"
    assert len({raw_bytes(events) for events in streams}) == 1
    assert len(model.requests) == 2
    assert len(await ada.list_items("conversations")) == 1


async def test_idempotency_retry_after_a_restart_gets_the_same_bytes(
    shared_database_url: str, model: ModelServer
) -> None:
    settings = settings_for(shared_database_url, **model_variables(model))
    model.script += [MILK, says("It is on the list.")]
    async with run_service(settings) as service:
        ada = service.user()
        first, first_stream = await send(ada), await stream(ada)
    async with run_service(settings) as service:
        ada = service.user(ada.user_id)
        again, again_stream = await send(ada), await stream(ada)

    assert (again.content, again.headers["idempotency-replayed"]) == (first.content, "true")
    assert again_stream == first_stream


async def test_idempotency_key_of_a_refused_message_may_be_used_again(ada: ApiUser, model: ModelServer) -> None:
    release = Event()
    conversation = (await ada.create("conversations"))["id"]
    body = {"json": {"message": "two", "conversation_id": conversation}, "headers": KEY}
    model.script += [says("One.").held(release), says("Two.")]
    async with stream_chat(ada, "one", conversation_id=conversation) as source:
        await source.next()
        refused = await ada.post("chat", **body)
        release.set()
        await source.rest()
    taken = await ada.post("chat", **body)

    assert refused.status_code == 409
    assert (taken.json()["response"], "idempotency-replayed" in taken.headers) == ("Two.", False)


async def test_idempotency_200_concurrent_requests_start_one_turn(
    ada: ApiUser, ada_elsewhere: ApiUser, model: ModelServer
) -> None:
    """Half of them get their response while the model has not answered, the others afterwards."""
    release = Event()
    model.script += [MILK, says("Once.").held(release)]
    posts = [asyncio.create_task(send((ada, ada_elsewhere)[nth % 2])) for nth in range(200)]
    await wait_until(lambda: answered(posts, 100))
    release.set()
    answers = await asyncio.gather(*posts)
    taken = [response for response in answers if response.status_code == 200]
    refused = [response.json() for response in answers if response.status_code == 409]
    (conversation,) = await ada.list_items("conversations")

    assert len(taken) + len(refused) == 200
    assert len({response.content for response in taken}) == 1
    assert len([response for response in taken if "idempotency-replayed" not in response.headers]) == 1
    assert {(item["code"], item["turn_id"]) for item in refused} == {("turn-in-progress", taken[0].json()["turn_id"])}
    assert len(await ada.list_items(f"conversations/{conversation['id']}/messages")) == 2
    assert len(await ada.list_items(f"conversations/{conversation['id']}/turns")) == 1
    assert len(await ada.list_items("tasks")) == 1
    assert len(model.requests) == 2


async def answered(posts: list[asyncio.Task[httpx2.Response]], count: int) -> bool:
    return len([post for post in posts if post.done()]) >= count
