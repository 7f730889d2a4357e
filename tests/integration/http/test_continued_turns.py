"""Turns whose process is gone: the next request that reads one, at any replica, continues it."""

import asyncio
from asyncio import Event
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from datetime import timedelta
from typing import Any
from uuid import UUID

import msgspec
import pytest

from latchkey.application.turns import subscription
from latchkey.application.turns.record import renew_turn
from latchkey.bootstrap.core import create_core
from latchkey.domain.credentials import Owner, UserId
from latchkey.domain.turn import TurnId
from tests.fakes.model_script import calls, says
from tests.fakes.model_server import ModelServer
from tests.integration.http.idempotent_chat import KEY
from tests.integration.http.lost_turns import get_turn, list_turns, lost_turn
from tests.support.captured_log import captured_log
from tests.support.event_stream import event_names, read_turn, stream_chat, stream_turn
from tests.support.service import ApiUser, Service, run_service

pytestmark = pytest.mark.asyncio(loop_scope="session")

MILK = calls(("add_task", '{"title": "Milk"}'), saying=("Adding. ",))


@pytest.fixture
def ada(replicas: tuple[Service, Service]) -> ApiUser:
    return replicas[0].user()


async def follow(user: ApiUser, turn: dict[str, str]) -> Any:
    async with stream_turn(user, turn["id"]) as source:
        await source.until("turn.resumed")
    return "running"


async def send_again(user: ApiUser, turn: dict[str, str]) -> Any:
    problem = (await user.post("chat", json={"message": "Hello"}, headers=KEY)).json()
    assert (problem["code"], problem["turn_id"], problem["same_request"]) == ("turn-in-progress", turn["id"], True)
    return "running"


async def send_next(user: ApiUser, turn: dict[str, str]) -> Any:
    body = {"message": "Are you there?", "conversation_id": turn["conversation_id"]}
    problem = (await user.post("chat", json=body)).json()
    assert (problem["code"], problem["turn_id"]) == ("turn-in-progress", turn["id"])
    return "running"


@pytest.mark.parametrize("send_request", [get_turn, list_turns, follow, send_again, send_next])
async def test_lost_turn_is_continued_by_every_request_that_reads_it(
    replicas: tuple[Service, Service],
    ada: ApiUser,
    ada_elsewhere: ApiUser,
    model: ModelServer,
    gate: Event,
    send_request: Callable[[ApiUser, dict[str, str]], Awaitable[Any]],
) -> None:
    model.script += [says("Here I am.").held(gate)]
    lost = await lost_turn(replicas[0], ada)
    turn = {"id": str(lost.turn.id), "conversation_id": str(lost.turn.conversation_id)}
    status = await send_request(ada_elsewhere, turn)
    gate.set()
    events = await read_turn(ada, turn["id"])
    shown = (await ada.get(f"turns/{turn['id']}")).json()
    messages = await ada.list_items(f"conversations/{turn['conversation_id']}/messages")

    assert status == "running"
    assert (shown["status"], shown["attempt"]) == ("completed", 2)
    assert list(dict.fromkeys(event_names(events))) == [
        "turn.started",
        "turn.resumed",
        "message.delta",
        "turn.completed",
    ]
    assert events[1].payload == {"attempt": 2, "reason": "recovery"}
    assert [message["content"] for message in messages] == ["Hello", "Here I am."]
    assert len(model.requests) == 1


async def test_concurrent_requests_that_read_a_lost_turn_continue_it_once(
    replicas: tuple[Service, Service], ada: ApiUser, ada_elsewhere: ApiUser, model: ModelServer
) -> None:
    model.script += [says("Here I am.")]
    lost = await lost_turn(replicas[0], ada)
    readers = [ada, ada_elsewhere] * 5
    logs = await asyncio.gather(*(read_turn(user, str(lost.turn.id)) for user in readers))

    assert [log for log in logs if log != logs[0]] == []
    assert event_names(logs[0]).count("turn.resumed") == 1
    assert (event_names(logs[0])[-1], len(model.requests)) == ("turn.completed", 1)


async def test_lost_turn_answers_the_retry_of_its_message_as_a_stream(
    replicas: tuple[Service, Service], ada: ApiUser, model: ModelServer
) -> None:
    model.script += [says("Here I am.")]
    await lost_turn(replicas[0], ada)
    async with stream_chat(ada, "Hello", headers=KEY) as source:
        events = await source.rest()
    replayed = await ada.post("chat", json={"message": "Hello"}, headers=KEY)

    assert event_names(events)[:2] == ["turn.started", "turn.resumed"]
    assert (events[-1].data["response"], replayed.json()["response"]) == ("Here I am.", "Here I am.")
    assert replayed.headers["idempotency-replayed"] == "true"


async def test_lost_turn_is_interrupted_by_a_message_that_interrupts(
    replicas: tuple[Service, Service], ada: ApiUser, model: ModelServer, gate: Event
) -> None:
    model.script += [says("Never said.").held(gate), says("Hello.")]
    lost = await lost_turn(replicas[0], ada)
    conversation_id = str(lost.turn.conversation_id)
    answer = await ada.chat("And now?", conversation_id=conversation_id, when_busy="interrupt")
    turns = await ada.list_items(f"conversations/{conversation_id}/turns")

    assert answer["response"] in {"Never said.", "Hello."}
    assert [turn["status"] for turn in turns] == ["completed", "cancelled"]


async def test_cancelled_lost_turn_is_not_continued(
    replicas: tuple[Service, Service], ada: ApiUser, model: ModelServer
) -> None:
    lost = await lost_turn(replicas[0], ada)
    cancelled = (await ada.post(f"turns/{lost.turn.id}/cancel")).json()
    events = await read_turn(ada, str(lost.turn.id))

    assert cancelled["status"] == "cancelled"
    assert event_names(events) == ["turn.started", "turn.cancelled"]
    assert model.requests == []


async def test_open_streams_of_a_lost_turn_continue_it_when_its_lease_expires(
    replicas: tuple[Service, Service], ada: ApiUser, ada_elsewhere: ApiUser, model: ModelServer
) -> None:
    """Nothing but the streams asks for the turn. They go on within a second after the lease."""
    model.script += [says("Here I am.")]
    lost = await lost_turn(replicas[0], ada, timedelta(seconds=2.5))
    clock = asyncio.get_running_loop().time
    async with (
        stream_turn(ada, str(lost.turn.id)) as here,
        stream_turn(ada_elsewhere, str(lost.turn.id)) as there,
    ):
        started = clock()
        streams = await asyncio.gather(here.rest(), there.rest())
        took = clock() - started

    assert event_names(streams[0])[:2] == ["turn.started", "turn.resumed"]
    assert streams[0] == streams[1]
    assert len(model.requests) == 1
    assert took < 3.5


@pytest.mark.parametrize("polling_s", [0.05, 600.0], ids=["polling", "notified"])
async def test_turn_that_is_handed_over_goes_on_for_its_followers(
    replicas: tuple[Service, Service],
    model: ModelServer,
    gate: Event,
    monkeypatch: pytest.MonkeyPatch,
    polling_s: float,
) -> None:
    """The lease is ten minutes. Followers learn of its end from the event bus, or where there is none by polling."""
    if replicas[0] is replicas[1] and polling_s > 1:
        pytest.skip("SQLite is used by one process: there is no other one to notify when it ends")
    monkeypatch.setattr(subscription, "KEEPALIVE_S", polling_s)
    monkeypatch.setattr(subscription, "LEASE_CHECK_S", polling_s)
    model.script += [MILK, says("I will nev").held(gate), says("Added.")]
    async with AsyncExitStack() as stack:
        log = stack.enter_context(captured_log())
        async with run_service(replicas[0].settings) as stopping:
            waiting = stopping.user()
            reader = replicas[1].user(waiting.user_id)
            post = asyncio.create_task(waiting.post("chat", json={"message": "Hello"}))
            await model.wait_for_requests(2)
            (conversation,) = await reader.list_items("conversations")
            (turn,) = await reader.list_items(f"conversations/{conversation['id']}/turns")
            source = await stack.enter_async_context(stream_turn(reader, turn["id"]))
            before = [*await source.until("tool_call.completed"), *await source.until("message.delta")]
        problem = (await post).json()
        after = await source.rest()
    shown = (await reader.get(f"turns/{turn['id']}")).json()
    lines = {line["attempt"]: (line["status"], line["code"], line["stored"]) for line in log.lines("turn")}

    assert lines == {1: ("running", None, False), 2: ("completed", None, True)}
    assert (problem["status"], problem["code"], problem["turn_id"]) == (503, "draining", turn["id"])
    assert event_names(after)[:2] == ["message.withdrawn", "turn.resumed"]
    assert after[1].payload == {"attempt": 2, "reason": "handover"}
    assert before[-1].seq + 1 == after[0].seq
    assert after[-1].data["response"] == "Adding. \n\nAdded."
    assert (shown["status"], len(shown["tool_calls"])) == ("completed", 1)
    assert [task["title"] for task in await reader.list_items("tasks")] == ["Milk"]


async def test_client_that_waits_gets_the_answer_of_the_process_that_continues_its_turn(
    replicas: tuple[Service, Service], model: ModelServer, gate: Event, shared_database_url: str
) -> None:
    """Its own process had lost the lease, as after a pause of the machine."""
    settings = msgspec.structs.replace(replicas[0].settings, turn_lease_s=3)
    model.script += [MILK, says("I will nev").held(gate), says("Added.")]
    async with run_service(settings) as paused:
        waiting = paused.user()
        post = asyncio.create_task(waiting.post("chat", json={"message": "Hello"}))
        await model.wait_for_requests(2)
        reader = replicas[1].user(waiting.user_id)
        (conversation,) = await reader.list_items("conversations")
        (turn,) = await reader.list_items(f"conversations/{conversation['id']}/turns")
        await end_lease(replicas[0], waiting, turn["id"])
        events = await read_turn(reader, turn["id"])
        answer = await post

    assert event_names(events)[-1] == "turn.completed"
    assert (answer.status_code, answer.json()["response"]) == (200, "Adding. \n\nAdded.")
    assert len(answer.json()["tool_calls"]) == 1
    assert len(model.requests) == 3


async def end_lease(service: Service, user: ApiUser, turn_id: str) -> None:
    """Let the lease of the turn end, as if its process had not renewed it."""
    core = create_core(service.settings)
    past = timedelta(seconds=-1)
    await core.dispatcher.call(Owner(UserId(user.user_id)), renew_turn, TurnId(UUID(turn_id)), past)
    await core.engine.dispose()
