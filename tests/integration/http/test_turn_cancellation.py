"""Cancellation of a turn, at the replica that runs it and at another one."""

import asyncio
from asyncio import Event

import pytest

from tests.fakes.model_script import Answer, calls, fails, says
from tests.fakes.model_server import ModelServer
from tests.polling import TIMEOUT_S, wait_until
from tests.support.event_stream import event_names, read_turn, stream_chat
from tests.support.service import ApiUser, Service

pytestmark = [pytest.mark.asyncio(loop_scope="session"), pytest.mark.usefixtures("without_polling")]

MILK = ("add_task", '{"title": "Buy milk"}')


@pytest.fixture
def ada(replicas: tuple[Service, Service]) -> ApiUser:
    """The user at the replica that runs her turns."""
    return replicas[0].user()


@pytest.fixture(params=["here", "elsewhere"])
def canceller(request: pytest.FixtureRequest, replicas: tuple[Service, Service], ada: ApiUser) -> ApiUser:
    """The same user, at the replica that runs her turns and at the other."""
    return ada if request.param == "here" else replicas[1].user(ada.user_id)


@pytest.mark.parametrize("step", [says(), says("Hel"), calls(MILK)], ids=["no text yet", "text", "tool call"])
async def test_cancel_ends_the_turn_while_the_model_has_not_answered(
    ada: ApiUser, canceller: ApiUser, model: ModelServer, gate: Event, step: Answer
) -> None:
    model.script += [step.held(gate), says("Next.")]
    waiting = asyncio.create_task(ada.post("chat", json={"message": "Hello"}))
    await model.wait_for_requests()
    turn = await running_turn(ada)
    followers = [asyncio.create_task(read_turn(user, turn["id"])) for user in (ada, canceller)]
    cancelled = (await canceller.post(f"turns/{turn['id']}/cancel")).json()
    problem = await waiting
    streams = [await follower for follower in followers]
    async with asyncio.timeout(TIMEOUT_S):
        await model.requests[0].client_disconnected.wait()
    after = await ada.chat("Are you there?", conversation_id=turn["conversation_id"])

    assert (cancelled["id"], cancelled["status"], cancelled["error"]) == (turn["id"], "cancelled", None)
    assert cancelled["finished_at"] > cancelled["started_at"]
    assert (problem.status_code, problem.json()["code"]) == (409, "turn-cancelled")
    assert [problem.json()[name] for name in ("turn_id", "conversation_id")] == [turn["id"], turn["conversation_id"]]
    assert streams[0] == streams[1] == await read_turn(ada, turn["id"])
    assert (streams[0][-1].name, streams[0][-1].payload) == ("turn.cancelled", {})
    assert (after["response"], await ada.list_items("tasks")) == ("Next.", [])


async def test_cancel_twice_has_the_effect_of_one(
    ada: ApiUser, canceller: ApiUser, model: ModelServer, gate: Event
) -> None:
    model.script += [says("Hel").held(gate)]
    async with stream_chat(ada, "Hello") as source:
        started, _ = await source.take(2)
        path = f"turns/{started.data['turn_id']}"
        answers = [(await user.post(f"{path}/cancel")).json() for user in (canceller, ada, canceller)]
        release = await source.rest()

    assert event_names(release) == ["turn.cancelled"]
    assert answers == [(await ada.get(path)).json()] * 3


@pytest.mark.parametrize(("last", "status"), [(says("Done."), "completed"), (fails(401), "failed")])
async def test_cancel_of_a_finished_turn_changes_nothing(
    ada: ApiUser, canceller: ApiUser, model: ModelServer, last: Answer, status: str
) -> None:
    model.script += [calls(MILK), last]
    async with stream_chat(ada, "Buy milk") as source:
        events = await source.rest()
    path = f"turns/{events[0].data['turn_id']}"
    before = (await ada.get(path)).json()
    cancelled = await canceller.post(f"{path}/cancel")

    assert (cancelled.status_code, cancelled.json()["status"]) == (200, status)
    assert cancelled.json() == before == (await ada.get(path)).json()
    assert await read_turn(ada, before["id"]) == events


async def test_cancel_prevents_further_tool_calls_of_the_turn(
    ada: ApiUser, canceller: ApiUser, model: ModelServer
) -> None:
    """The model has requested many calls in one answer, and they run one after the other."""
    release = Event()
    model.script += [calls(*[MILK] * 60).held(release), says("Never said.")]
    waiting = asyncio.create_task(ada.post("chat", json={"message": "Buy milk, often"}))
    await model.wait_for_requests()
    turn = await running_turn(ada)
    release.set()
    await wait_until(lambda: has_tasks(ada))
    cancelled = (await canceller.post(f"turns/{turn['id']}/cancel")).json()
    made = await ada.list_items("tasks", limit=200)
    problem = await waiting
    shown = (await ada.get(f"turns/{turn['id']}")).json()
    events = await read_turn(ada, turn["id"])

    assert (cancelled["status"], problem.json()["code"]) == ("cancelled", "turn-cancelled")
    assert 1 <= len(made) < 60
    assert await ada.list_items("tasks", limit=200) == made
    assert shown == cancelled
    assert len([call for call in shown["tool_calls"] if not call["is_error"]]) == len(made)
    assert event_names(events).count("tool_call.completed") == len(made)


async def running_turn(user: ApiUser) -> dict[str, str]:
    (conversation,) = await user.list_items("conversations")
    (turn,) = await user.list_items(f"conversations/{conversation['id']}/turns")
    assert turn["status"] == "running"
    return turn


async def has_tasks(user: ApiUser) -> bool:
    return len(await user.list_items("tasks")) >= 1
