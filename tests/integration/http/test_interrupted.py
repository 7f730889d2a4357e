"""Turns whose runner is gone without a word: once the lease has passed, whoever looks finds them interrupted."""

import asyncio
from asyncio import Event
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Any

import pytest
from msgspec.structs import replace

from latchkey.application.turns import subscription as watching
from latchkey.application.turns.start import StartedTurn, start_turn
from latchkey.bootstrap.core import create_core
from latchkey.domain.credentials import Owner, UserId
from latchkey.domain.message import NewMessage
from latchkey.interfaces.http.idempotency import idempotency_of
from tests.builders import LIMITS, TASK_GRANTS
from tests.fakes.model_script import says
from tests.fakes.model_server import ModelServer
from tests.integration.http.idempotent_chat import KEY
from tests.polling import wait_until
from tests.support.event_stream import event_names, read_turn, stream_chat, stream_turn
from tests.support.service import ApiUser, Service, run_service

pytestmark = pytest.mark.asyncio(loop_scope="session")

GONE = timedelta()


@pytest.fixture
def ada(replicas: tuple[Service, Service]) -> ApiUser:
    return replicas[0].user()


@pytest.fixture
def ada_elsewhere(replicas: tuple[Service, Service], ada: ApiUser) -> ApiUser:
    """The same person, at the other replica."""
    return replicas[1].user(ada.user_id)


@asynccontextmanager
async def left_behind(service: Service, person: ApiUser, lease: timedelta = GONE) -> AsyncIterator[StartedTurn]:
    """A turn of theirs, taken under the key `k` by a process that went away before it did anything about it."""
    core = create_core(service.settings)
    said = NewMessage("Hello")
    terms = replace(LIMITS, lease=lease)
    idempotency = idempotency_of("k", said, "the-first-request")
    turn = await core.dispatcher.call(
        Owner(UserId(person.user_id)), start_turn, said, "openai", TASK_GRANTS, terms, idempotency
    )
    await core.engine.dispose()
    assert isinstance(turn, StartedTurn)
    yield turn


async def in_itself(person: ApiUser, turn: dict[str, str]) -> Any:
    return (await person.get(f"turns/{turn['id']}")).json()["status"]


async def in_its_conversation(person: ApiUser, turn: dict[str, str]) -> Any:
    (found,) = await person.list_items(f"conversations/{turn['conversation_id']}/turns")
    return found["status"]


async def in_its_events(person: ApiUser, turn: dict[str, str]) -> Any:
    (*_, last) = await read_turn(person, turn["id"])
    return last.name.removeprefix("turn.")


async def by_cancelling(person: ApiUser, turn: dict[str, str]) -> Any:
    return (await person.post(f"turns/{turn['id']}/cancel")).json()["status"]


async def by_sending_its_message_again(person: ApiUser, _turn: dict[str, str]) -> Any:
    again = await person.post("chat", json={"message": "Hello"}, headers=KEY)
    return again.json()["code"].removeprefix("turn-")


LOOKS = [in_itself, in_its_conversation, in_its_events, by_cancelling, by_sending_its_message_again]


@pytest.mark.parametrize("look", LOOKS)
async def test_however_somebody_looks_it_is_interrupted_and_stays_so(
    replicas: tuple[Service, Service],
    ada: ApiUser,
    ada_elsewhere: ApiUser,
    look: Callable[[ApiUser, dict[str, str]], Awaitable[Any]],
) -> None:
    async with left_behind(replicas[0], ada) as left:
        turn = {"id": str(left.turn.id), "conversation_id": str(left.turn.conversation_id)}
    first = await look(ada, turn)
    afterwards = [await other(person, turn) for other in LOOKS for person in (ada, ada_elsewhere)]
    events = await read_turn(ada_elsewhere, turn["id"])
    shown = (await ada.get(f"turns/{turn['id']}")).json()

    assert {first, *afterwards} == {"interrupted"}
    assert [(event.seq, event.name) for event in events] == [(1, "turn.started"), (2, "turn.interrupted")]
    assert events[-1].payload == {}
    assert shown["finished_at"] is not None
    assert [one["content"] for one in await ada.list_items(f"conversations/{turn['conversation_id']}/messages")] == [
        "Hello"
    ]


async def test_its_conversation_goes_on(replicas: tuple[Service, Service], ada: ApiUser, model: ModelServer) -> None:
    """Without anybody looking first; and the model is shown what was said."""
    model.script += [says("I am here.")]
    async with left_behind(replicas[0], ada) as left:
        conversation_id = str(left.turn.conversation_id)
    answer = await ada.chat("Are you there?", conversation_id=conversation_id)

    assert (answer["response"], answer["message"]["seq"]) == ("I am here.", 3)
    assert [text for role, text in model.requests[0].conversation if role == "user"] == ["Hello", "Are you there?"]
    assert [turn["status"] for turn in await ada.list_items(f"conversations/{conversation_id}/turns")] == [
        "completed",
        "interrupted",
    ]


async def test_it_is_not_run_again(replicas: tuple[Service, Service], ada: ApiUser, model: ModelServer) -> None:
    """Its message sent again is told what became of it, as the request that brought it would have been."""
    async with left_behind(replicas[0], ada) as left:
        again = await ada.post("chat", json={"message": "Hello"}, headers=KEY)
    problem = again.json()

    assert (again.status_code, problem["code"]) == (503, "turn-interrupted")
    assert (problem["turn_id"], problem["conversation_id"]) == (str(left.turn.id), str(left.turn.conversation_id))
    assert (problem["request_id"], again.headers["idempotency-replayed"]) == ("the-first-request", "true")
    assert int(again.headers["retry-after"]) > 0
    async with stream_chat(ada, "Hello", headers=KEY) as source:
        assert event_names(await source.rest()) == ["turn.started", "turn.interrupted"]
    assert model.requests == []


async def test_its_token_opens_nothing(replicas: tuple[Service, Service], ada: ApiUser) -> None:
    async with left_behind(replicas[0], ada) as left:
        headers = {"authorization": f"Bearer {left.secret.text}"}
        refused = await ada.client.post("/mcp", headers=headers, json={})

    assert refused.status_code == 401


async def test_it_does_not_count_among_the_turns_that_somebody_may_have(
    replicas: tuple[Service, Service], ada: ApiUser, model: ModelServer
) -> None:
    core = create_core(replicas[0].settings)
    terms = replace(LIMITS, lease=GONE)
    for _ in range(4):
        await core.dispatcher.call(
            Owner(UserId(ada.user_id)), start_turn, NewMessage("Hello"), "openai", TASK_GRANTS, terms
        )
    await core.engine.dispose()
    model.script += [says("Hello.")]
    async with stream_chat(ada, "Hello") as source:
        events = await source.rest()

    assert event_names(events)[-1] == "turn.completed"


async def test_who_follows_it_when_its_lease_passes_is_told_and_let_go(
    replicas: tuple[Service, Service], ada: ApiUser, ada_elsewhere: ApiUser, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Within ten seconds of that; here sooner, so that nobody has to wait."""
    assert watching.PATIENCE_S <= 10
    monkeypatch.setattr(watching, "PATIENCE_S", 0.05)
    async with left_behind(replicas[0], ada, timedelta(seconds=1)) as left:
        turn_id = str(left.turn.id)
        async with stream_turn(ada, turn_id) as here, stream_turn(ada_elsewhere, turn_id) as there:
            running = await in_itself(ada, {"id": turn_id})
            heard = await asyncio.gather(here.rest(), there.rest())

    assert running == "running"
    assert event_names(heard[0]) == ["turn.started", "turn.interrupted"]
    assert heard[0] == heard[1]


async def test_a_service_that_stops_leaves_its_turns_interrupted_with_all_that_was_told(
    replicas: tuple[Service, Service], model: ModelServer, held: Event, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As others have it, who on SQLite look into the log now and then: a second process is not told there."""
    monkeypatch.setattr(watching, "PATIENCE_S", 0.05)
    model.script += [says("Half an ").held(held)]
    async with run_service(replicas[0].settings) as stopping:
        waiting = stopping.user()
        post = asyncio.create_task(waiting.post("chat", json={"message": "Hello"}))
        await wait_until(lambda: asked_once(model))
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


async def asked_once(model: ModelServer) -> bool:
    return len(model.requests) == 1
