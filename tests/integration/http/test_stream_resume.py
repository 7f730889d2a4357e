"""Resume of an event stream at any replica: the parts together equal the uninterrupted stream, byte for byte."""

import asyncio
from asyncio import Event
from collections.abc import Callable
from typing import Any
from uuid import uuid4

import pytest

from tests.fakes.model_script import says
from tests.fakes.model_server import ModelServer
from tests.integration.http.task_calls import MILK
from tests.support.event_stream import ServerSentEvent, raw_bytes, read_turn, stream_chat, stream_turn
from tests.support.service import ApiUser, Service

pytestmark = [pytest.mark.asyncio(loop_scope="session"), pytest.mark.usefixtures("without_polling")]

WAYS: dict[str, Callable[[int], dict[str, Any]]] = {
    "Last-Event-ID": lambda seq: {"headers": {"last-event-id": str(seq)}},
    "after": lambda seq: {"params": {"after": str(seq)}},
}


@pytest.fixture
def ada(replicas: tuple[Service, Service]) -> ApiUser:
    return replicas[0].user()


@pytest.mark.parametrize("way", WAYS)
async def test_resume_of_a_finished_turn_after_each_event(
    ada: ApiUser, ada_elsewhere: ApiUser, model: ModelServer, way: str
) -> None:
    model.script += [MILK, says("It is ", "on the list.")]
    async with stream_chat(ada, "Buy milk") as source:
        uncut = await source.rest()
    turn_id = uncut[0].data["turn_id"]

    for seq in range(len(uncut) + 1):
        async with stream_turn(ada, turn_id) as source:
            before = await source.take(seq)
        for reader in (ada, ada_elsewhere):
            assert raw_bytes(before + await read_turn(reader, turn_id, **WAYS[way](seq))) == raw_bytes(uncut)


@pytest.mark.parametrize("way", WAYS)
async def test_resume_of_a_running_turn_after_each_event(
    ada: ApiUser, ada_elsewhere: ApiUser, model: ModelServer, way: str
) -> None:
    """All streams are cut and resumed while the model has sent half of its answer."""
    release = Event()
    model.script += [MILK, says("It is ", "on the list.").held(release)]
    async with stream_chat(ada, "Buy milk") as source:
        so_far = await source.until("tool_call.completed")
        so_far.append(await source.next())
        turn_id = so_far[0].data["turn_id"]
        going_on = [
            asyncio.create_task(read_turn(reader, turn_id, **WAYS[way](seq)))
            for seq in range(len(so_far) + 1)
            for reader in (ada, ada_elsewhere)
        ]
        release.set()
        uncut = so_far + await source.rest()
    resumed = await asyncio.gather(*going_on)

    assert [raw_bytes(events) for events in resumed] == [raw_bytes(uncut[nth // 2 :]) for nth in range(len(resumed))]


async def test_resume_with_a_disconnect_after_every_event_misses_none(
    ada: ApiUser, ada_elsewhere: ApiUser, model: ModelServer
) -> None:
    """The client reconnects to the two replicas alternately while the turn runs."""
    release = Event()
    model.script += [MILK, says("It is ", "on the list.").held(release), says("Never said.")]
    async with stream_chat(ada, "Buy milk") as source:
        events = [await source.next()]
    while not events[-1].is_final:
        reader = (ada, ada_elsewhere)[len(events) % 2]
        events.append(await next_after(reader, events[-1]))
        assert events[-1].seq == len(events)
        if events[-1].name == "tool_call.completed":
            release.set()

    assert raw_bytes(events) == raw_bytes(await read_turn(ada, events[0].data["turn_id"]))
    assert events[-1].data["response"] == "I write it down.\n\nIt is on the list."


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("beyond", [0, 1, 1000, 2**31 - 1 - 100])
async def test_resume_after_the_last_event_is_empty(
    ada: ApiUser, ada_elsewhere: ApiUser, model: ModelServer, way: str, beyond: int
) -> None:
    model.script += [says("Hello.")]
    answer = await ada.chat("Hello")
    last = (await read_turn(ada, answer["turn_id"]))[-1].seq

    for reader in (ada, ada_elsewhere):
        assert await read_turn(reader, answer["turn_id"], **WAYS[way](last + beyond)) == []


async def test_resume_header_takes_precedence_over_the_query(ada: ApiUser, model: ModelServer) -> None:
    """A browser's EventSource reconnects to the original URL and adds the header."""
    model.script += [says("Hello.")]
    answer = await ada.chat("Hello")
    both = {"params": {"after": "0"}, "headers": {"last-event-id": "2"}}
    events = await read_turn(ada, answer["turn_id"], **both)

    assert [event.name for event in events] == ["turn.completed"]


@pytest.mark.parametrize("bad", ["-1", "one", "1.5", str(2**31), "9" * 40, "0x1", "1;2"])
@pytest.mark.parametrize("way", ["Last-Event-ID", "after"])
async def test_resume_with_an_invalid_event_number_is_invalid(
    ada: ApiUser, model: ModelServer, way: str, bad: str
) -> None:
    model.script += [says("Hello.")]
    answer = await ada.chat("Hello")
    given: dict[str, Any] = {"headers": {"last-event-id": bad}} if way == "Last-Event-ID" else {"params": {way: bad}}
    refused = await ada.get(f"turns/{answer['turn_id']}/events", **given)

    assert (refused.status_code, refused.json()["code"]) == (422, "invalid")
    assert refused.headers["content-type"] == "application/problem+json"


@pytest.mark.parametrize(("method", "path"), [("GET", "turns/{}/events"), ("POST", "turns/{}/cancel")])
async def test_resume_isolation_turn_of_another_user_is_not_found(
    replicas: tuple[Service, Service], ada: ApiUser, model: ModelServer, method: str, path: str
) -> None:
    """The same bytes as for an absent turn; the client sends the request id."""
    release = Event()
    model.script += [says("Hello.").held(release)]
    bob = replicas[1].user()
    async with stream_chat(ada, "Hello") as source:
        started = await source.next()
        ids = [started.data["turn_id"], str(uuid4())]
        responses = [await status_and_body(bob, method, path.format(id)) for id in ids]
        release.set()
        events = await source.rest()

    assert responses[0] == responses[1]
    assert responses[0][0] == 404
    assert events[-1].name == "turn.completed"


async def next_after(reader: ApiUser, event: ServerSentEvent) -> ServerSentEvent:
    """Read the next event on a new connection and close it."""
    given = WAYS["Last-Event-ID"](event.seq)
    async with stream_turn(reader, event.data["turn_id"], **given) as source:
        return await source.next()


async def status_and_body(reader: ApiUser, method: str, path: str) -> tuple[int, bytes]:
    """Status and body."""
    async with reader.stream(method, path, headers={"x-request-id": "the-same"}) as response:
        return response.status_code, await response.aread()
