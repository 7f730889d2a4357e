"""Isolation of users in the routes of AG-UI: threads, messages and runs of another user are unknown."""

import pytest

from tests.fakes.model_script import says
from tests.fakes.model_server import ModelServer
from tests.integration.http.ag_ui.runs import (
    API,
    run,
    run_input,
    say,
    text_of,
    thread_messages,
    user_message,
)
from tests.support.service import ApiUser, Service
from tests.support.streamed_data import read_until

pytestmark = pytest.mark.asyncio(loop_scope="session")

ROUTES = [("POST", ""), ("GET", "?runId=r1"), ("GET", "?threadId=t1"), ("GET", "/t1")]


@pytest.fixture
def ada(replicas: tuple[Service, Service]) -> ApiUser:
    return replicas[0].user()


@pytest.fixture
def bob(replicas: tuple[Service, Service]) -> ApiUser:
    return replicas[0].user()


async def test_isolation_threads_and_runs_of_another_user_are_like_unknown_ones(
    ada: ApiUser, bob: ApiUser, model: ModelServer
) -> None:
    model.script += [says("For Bob."), says("Mine."), says("Mine."), says("Mine.")]
    start = (await say(bob, "t1", "I am Bob", "m1", run_id="r1"))[0]
    conversation_id, turn_id = start["metadata"]["conversationId"], start["metadata"]["turnId"]
    before = await thread_messages(bob, "t1")

    for name in ("t1", conversation_id):
        assert await thread_messages(ada, name) == []
        assert await thread_messages(ada, name, before=turn_id) == []
        assert (await ada.get(API, params={"threadId": name})).json()["messages"] == []
        assert (await run(ada, run_input(name)))[1]["messages"] == []
    for run_id in ("r1", turn_id):
        assert (await ada.get(API, params={"runId": run_id})).status_code == 404
    body = run_input("t1", user_message("I am Bob", "m1"), run_id="r1")
    for thread in ("t1", conversation_id, turn_id):
        mine = await run(ada, body | {"threadId": thread, "runId": thread}, last_event_id="1.0")
        assert text_of(mine) == "Mine."
    assert await thread_messages(bob, "t1") == before
    assert all("For Bob" not in str(request.conversation) for request in model.requests[1:])


async def test_isolation_running_turn_of_another_user_is_neither_interrupted_nor_streamed(
    ada: ApiUser, bob: ApiUser, model: ModelServer
) -> None:
    model.script += [says("Half ", "of it."), says("Mine.")]
    body = run_input("t1", user_message("Count", "m1"), run_id="r1")
    async with bob.stream("POST", API, json=body) as response:
        lines = response.aiter_lines()
        await read_until(lines, "RUN_STARTED")
        await model.wait_for_requests()
        assert (await ada.get(f"{API}/t1")).json()["activeTurnId"] is None
        assert text_of(await run(ada, body, last_event_id="1.0")) == "Mine."
        rest = await read_until(lines, "RUN_FINISHED")

    assert "outcome" not in rest[-1]
    assert len(model.requests) == 2


@pytest.mark.parametrize(("method", "path"), ROUTES)
async def test_isolation_path_of_another_user_is_refused(
    ada: ApiUser, bob: ApiUser, model: ModelServer, method: str, path: str
) -> None:
    model.script.append(says("For Bob."))
    await say(bob, "t1", "I am Bob", run_id="r1")
    body = run_input("t1", user_message("Hi")) if method == "POST" else None
    stranger = ApiUser(bob.user_id, ada.token, ada.client)
    refused = await stranger.request(method, f"{API}{path}", json=body)
    anonymous = await ApiUser(bob.user_id, "none", ada.client).request(method, f"{API}{path}", json=body)

    assert (refused.status_code, refused.json()["code"]) == (403, "wrong-user")
    assert (anonymous.status_code, anonymous.json()["code"]) == (401, "unauthenticated")
