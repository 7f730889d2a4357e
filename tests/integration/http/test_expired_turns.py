"""Expired turns of services that never continue one: after the lease has expired, each request sees it as interrupted.

`test_continued_turns.py` has what is the default.
"""

import asyncio
from asyncio import Event
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import timedelta
from typing import Any

import pytest
import pytest_asyncio
from msgspec.structs import replace

from latchkey.application.turns import subscription
from latchkey.application.turns.start import start_turn
from latchkey.bootstrap.core import create_core
from latchkey.domain.credentials import Owner, UserId
from latchkey.domain.message import NewMessage
from tests.builders import LIMITS
from tests.fakes.model_script import says
from tests.fakes.model_server import ModelServer
from tests.integration.http.idempotent_chat import KEY
from tests.integration.http.lost_turns import GONE, get_turn, list_turns, lost_turn
from tests.support.event_stream import event_names, read_turn, stream_chat, stream_turn
from tests.support.service import ApiUser, Service, model_variables, run_service, settings_for
from tests.turns import profiles_of

pytestmark = pytest.mark.asyncio(loop_scope="session")


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def replicas(shared_database_url: str, shared_model: ModelServer) -> AsyncIterator[tuple[Service, Service]]:
    """Replicas with one attempt for each turn."""
    variables = {"LATCHKEY_TURN_LEASE_S": "600", "LATCHKEY_TURN_ATTEMPTS": "1", **model_variables(shared_model)}
    settings = settings_for(shared_database_url, **variables)
    async with run_service(settings, on_socket=True) as first:
        if shared_database_url.startswith("sqlite"):
            yield first, first
        else:
            async with run_service(settings, on_socket=True) as second:
                yield first, second


@pytest.fixture
def ada(replicas: tuple[Service, Service]) -> ApiUser:
    return replicas[0].user()


async def read_events(user: ApiUser, turn: dict[str, str]) -> Any:
    (*_, last) = await read_turn(user, turn["id"])
    return last.name.removeprefix("turn.")


async def cancel(user: ApiUser, turn: dict[str, str]) -> Any:
    return (await user.post(f"turns/{turn['id']}/cancel")).json()["status"]


async def send_again(user: ApiUser, _turn: dict[str, str]) -> Any:
    again = await user.post("chat", json={"message": "Hello"}, headers=KEY)
    return again.json()["code"].removeprefix("turn-")


REQUESTS = [get_turn, list_turns, read_events, cancel, send_again]


@pytest.mark.parametrize("send_request", [get_turn, list_turns, read_events, send_again])
async def test_expired_lease_shows_the_turn_as_interrupted_in_every_request(
    replicas: tuple[Service, Service],
    ada: ApiUser,
    ada_elsewhere: ApiUser,
    send_request: Callable[[ApiUser, dict[str, str]], Awaitable[Any]],
) -> None:
    lost = await lost_turn(replicas[0], ada)
    turn = {"id": str(lost.turn.id), "conversation_id": str(lost.turn.conversation_id)}
    first = await send_request(ada, turn)
    afterwards = [await other(user, turn) for other in REQUESTS for user in (ada, ada_elsewhere)]
    events = await read_turn(ada_elsewhere, turn["id"])
    shown = (await ada.get(f"turns/{turn['id']}")).json()

    assert {first, *afterwards} == {"interrupted"}
    assert [(event.seq, event.name) for event in events] == [(1, "turn.started"), (2, "turn.interrupted")]
    assert events[-1].payload == {}
    assert shown["finished_at"] is not None
    assert [item["content"] for item in await ada.list_items(f"conversations/{turn['conversation_id']}/messages")] == [
        "Hello"
    ]


async def test_expired_lease_allows_the_next_turn_of_the_conversation(
    replicas: tuple[Service, Service], ada: ApiUser, model: ModelServer
) -> None:
    """Without an earlier read, and the model sees the message of the lost turn."""
    model.script += [says("I am here.")]
    lost = await lost_turn(replicas[0], ada)
    conversation_id = str(lost.turn.conversation_id)
    answer = await ada.chat("Are you there?", conversation_id=conversation_id)

    assert (answer["response"], answer["message"]["seq"]) == ("I am here.", 3)
    assert [text for role, text in model.requests[0].conversation if role == "user"] == ["Hello", "Are you there?"]
    assert [turn["status"] for turn in await ada.list_items(f"conversations/{conversation_id}/turns")] == [
        "completed",
        "interrupted",
    ]


async def test_expired_lease_does_not_run_the_turn_again(
    replicas: tuple[Service, Service], ada: ApiUser, model: ModelServer
) -> None:
    """A retry with its idempotency key gets the failure of the turn."""
    lost = await lost_turn(replicas[0], ada)
    again = await ada.post("chat", json={"message": "Hello"}, headers=KEY)
    problem = again.json()

    assert (again.status_code, problem["code"]) == (503, "turn-interrupted")
    assert (problem["turn_id"], problem["conversation_id"]) == (str(lost.turn.id), str(lost.turn.conversation_id))
    assert (problem["request_id"], again.headers["idempotency-replayed"]) == ("the-first-request", "true")
    assert int(again.headers["retry-after"]) > 0
    async with stream_chat(ada, "Hello", headers=KEY) as source:
        assert event_names(await source.rest()) == ["turn.started", "turn.interrupted"]
    assert model.requests == []


async def test_expired_lease_revokes_the_token_of_the_turn(replicas: tuple[Service, Service], ada: ApiUser) -> None:
    lost = await lost_turn(replicas[0], ada)
    headers = {"authorization": f"Bearer {lost.secret.text}"}
    refused = await ada.client.post("/mcp", headers=headers, json={})

    assert refused.status_code == 401


async def test_expired_lease_frees_the_turn_slot_of_the_user(
    replicas: tuple[Service, Service], ada: ApiUser, model: ModelServer
) -> None:
    core = create_core(replicas[0].settings)
    terms = replace(LIMITS, lease=GONE)
    for _ in range(4):
        await core.dispatcher.call(Owner(UserId(ada.user_id)), start_turn, NewMessage("Hello"), profiles_of(), terms)
    await core.engine.dispose()
    model.script += [says("Hello.")]
    async with stream_chat(ada, "Hello") as source:
        events = await source.rest()

    assert event_names(events)[-1] == "turn.completed"


async def test_expired_lease_ends_the_open_streams_of_the_turn(
    replicas: tuple[Service, Service], ada: ApiUser, ada_elsewhere: ApiUser, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Documented: within ten seconds. The test uses a shorter interval."""
    assert subscription.KEEPALIVE_S <= 10
    monkeypatch.setattr(subscription, "KEEPALIVE_S", 0.05)
    lost = await lost_turn(replicas[0], ada, timedelta(seconds=1))
    turn_id = str(lost.turn.id)
    async with stream_turn(ada, turn_id) as here, stream_turn(ada_elsewhere, turn_id) as there:
        running = await get_turn(ada, {"id": turn_id})
        streams = await asyncio.gather(here.rest(), there.rest())

    assert running == "running"
    assert event_names(streams[0]) == ["turn.started", "turn.interrupted"]
    assert streams[0] == streams[1]


async def test_drain_timeout_interrupts_turns_and_keeps_their_events(
    replicas: tuple[Service, Service], model: ModelServer, gate: Event, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Read through another service; on SQLite it polls, because a second process gets no notifications."""
    monkeypatch.setattr(subscription, "KEEPALIVE_S", 0.05)
    model.script += [says("Half an ").held(gate)]
    async with run_service(replicas[0].settings) as stopping:
        waiting = stopping.user()
        post = asyncio.create_task(waiting.post("chat", json={"message": "Hello"}))
        await model.wait_for_requests()
        reader = replicas[1].user(waiting.user_id)
        (conversation,) = await reader.list_items("conversations")
        (turn,) = await reader.list_items(f"conversations/{conversation['id']}/turns")
        async with stream_turn(reader, turn["id"]) as source:
            so_far = await source.take(2)
    problem = (await post).json()
    events = await read_turn(reader, turn["id"])

    assert (problem["code"], problem["turn_id"]) == ("turn-interrupted", turn["id"])
    assert events[:2] == so_far
    assert event_names(events) == ["turn.started", "message.delta", "turn.interrupted"]
    assert events[1].data["text"] == "Half an "
