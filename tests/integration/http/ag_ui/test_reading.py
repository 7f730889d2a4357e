"""What AG-UI clients read again: runs after an event, runs by their ids, and threads with their pages."""

import asyncio
from asyncio import Event
from typing import Any

import pytest

from tests.fakes.model_script import says
from tests.fakes.model_server import ModelServer
from tests.integration.http.ag_ui.runs import (
    API,
    events_of,
    frames_of,
    run_input,
    say,
    text_of,
    thread_messages,
    user_message,
)
from tests.integration.http.task_calls import MILK
from tests.support.service import ApiUser, Service
from tests.support.streamed_data import read_until

pytestmark = pytest.mark.asyncio(loop_scope="session")


@pytest.fixture
def ada(replicas: tuple[Service, Service]) -> ApiUser:
    return replicas[0].user()


async def thread(user: ApiUser, **params: Any) -> dict[str, Any]:
    response = await user.get(API, params=params)
    assert response.status_code == 200, response.text
    shown: dict[str, Any] = response.json()
    return shown


async def test_resume_by_last_event_id_has_exactly_the_rest_at_any_replica(
    ada: ApiUser, ada_elsewhere: ApiUser, model: ModelServer
) -> None:
    model.script += [MILK, says("It is ", "on the list.")]
    body = run_input("t1", user_message("Buy milk"), run_id="r1")
    whole = frames_of(await ada.post(API, json=body))

    for place, (id, _) in enumerate(whole):
        headers = {"last-event-id": id}
        for reader in (ada, ada_elsewhere):
            assert frames_of(await reader.post(API, json=body, headers=headers)) == whole[place + 1 :]
            assert frames_of(await reader.get(API, params={"runId": "r1"}, headers=headers)) == whole[place + 1 :]
    assert len(model.requests) == 2


async def test_resume_of_a_running_turn_goes_on_live(
    ada: ApiUser, ada_elsewhere: ApiUser, model: ModelServer, gate: Event
) -> None:
    model.script.append(says("Half ", "of it.").held(gate))
    body = run_input("t1", user_message("Count"), run_id="r1")
    first = asyncio.create_task(ada.post(API, json=body))
    await model.wait_for_requests()
    async with ada_elsewhere.stream("POST", API, json=body, headers={"last-event-id": "1.0"}) as response:
        lines = response.aiter_lines()
        begun = await read_until(lines, "TEXT_MESSAGE_START")
        gate.set()
        rest = await read_until(lines, "RUN_FINISHED")

    assert begun + rest == events_of(await first)[1:]


async def test_resume_of_a_run_that_joined_the_turn_of_another_does_not_send_the_message_again(
    ada: ApiUser, model: ModelServer, gate: Event
) -> None:
    """TanStack AI repeats its POST when the connection breaks, and the turn may have ended meanwhile."""
    model.script += [says("Once", ".").held(gate), says("Twice.")]
    first = asyncio.create_task(say(ada, "t1", "Hi", "m1", run_id="r1"))
    await model.wait_for_requests()
    body = run_input("t1", user_message("Hi", "m1"), run_id="r2")
    async with ada.stream("POST", API, json=body) as response:
        await read_until(response.aiter_lines(), "TEXT_MESSAGE_START")
    gate.set()
    whole = await first
    resumed = events_of(await ada.post(API, json=body, headers={"last-event-id": "2.0"}))

    assert text_of(resumed) == text_of(whole) == "Once."
    assert (await thread(ada, threadId="t1"))["messages"][0]["id"] == "m1"
    assert len(model.requests) == 1


@pytest.mark.parametrize("last_event_id", ["", "7", "1.x", "-1.0", "1.0.0", "9" * 40 + ".0"])
async def test_last_event_id_of_another_form_is_ignored(ada: ApiUser, model: ModelServer, last_event_id: str) -> None:
    model.script.append(says("Hello"))
    body = run_input("t1", user_message("Hi"))
    events = events_of(await ada.post(API, json=body, headers={"last-event-id": last_event_id}))

    assert text_of(events) == "Hello"


async def test_resume_of_a_run_that_has_not_begun_sends_the_message(ada: ApiUser, model: ModelServer) -> None:
    model.script.append(says("Hello"))
    body = run_input("t1", user_message("Hi"))
    events = events_of(await ada.post(API, json=body, headers={"last-event-id": "1.0"}))

    assert text_of(events) == "Hello"


async def test_run_is_found_by_the_id_of_the_client_and_by_that_of_the_turn(ada: ApiUser, model: ModelServer) -> None:
    model.script += [says("Hello"), says("Hello again")]
    sent = await say(ada, "t1", "Hi", run_id="r1")
    turn_id = sent[0]["metadata"]["turnId"]
    answer = await ada.chat("Hi again", client_conversation_id="t2")
    by_client = events_of(await ada.get(API, params={"runId": "r1", "offset": "-1"}))
    by_turn = events_of(await ada.get(API, params={"runId": turn_id}))
    over_rest = events_of(await ada.get(API, params={"runId": answer["turn_id"]}))

    assert by_client == sent
    assert by_turn[0] == sent[0] | {"runId": turn_id}
    assert (over_rest[0]["threadId"], text_of(over_rest)) == ("t2", "Hello again")


async def test_repeated_run_id_names_the_newest_turn(ada: ApiUser, model: ModelServer) -> None:
    model.script += [says("One"), says("Two")]
    for text in ("First", "Second"):
        await say(ada, "t1", text, run_id="r1")

    assert text_of(events_of(await ada.get(API, params={"runId": "r1"}))) == "Two"


async def test_unknown_run_is_not_found(ada: ApiUser) -> None:
    for run_id in ("r1", "0198f3c0-a7b4-7c1e-8d2f-3a4b5c6d7e8f"):
        assert (await ada.get(API, params={"runId": run_id})).status_code == 404


async def test_thread_of_tanstack_has_parts_and_the_running_turn(ada: ApiUser, model: ModelServer, gate: Event) -> None:
    model.script += [MILK, says("It is ", "on the list."), says("Half ", "of it.").held(gate)]
    await say(ada, "t1", "Buy milk", "m1")
    running = asyncio.create_task(say(ada, "t1", "Count", "m2", run_id="r2"))
    await model.wait_for_requests(3)
    shown = await thread(ada, threadId="t1")
    user, asking, answer, last = shown["messages"]
    gate.set()
    await running
    ended = await thread(ada, threadId="t1")

    assert user == {"id": "m1", "role": "user", "parts": [{"type": "text", "content": "Buy milk"}]}
    assert [part["type"] for part in asking["parts"]] == ["text", "tool-call", "tool-result"]
    assert asking["parts"][1]["input"] == {"title": "Buy milk"}
    assert answer["parts"] == [{"type": "text", "content": "It is on the list."}]
    assert last["id"] == "m2"
    assert (shown["activeRun"], shown["interrupts"], shown["page"]) == ({"runId": "r2"}, None, {"truncated": False})
    assert ended["activeRun"] is None
    assert len(ended["messages"]) == 5


async def test_pagination_of_a_thread_returns_all_messages(ada: ApiUser, model: ModelServer) -> None:
    model.script += [says(text) for text in ("One", "Two", "Three")]
    for text in ("First", "Second", "Third"):
        await say(ada, "t1", text)
    newest = await thread(ada, threadId="t1", limit=2)
    cursor = newest["page"]["cursor"]
    earlier = await thread(ada, threadId="t1", limit=2, before=cursor)
    whole = await thread(ada, threadId="t1")

    assert earlier["messages"] + newest["messages"] == whole["messages"]
    assert earlier["page"] == {"truncated": False}
    paged = await thread_messages(ada, "t1", limit=1, before=cursor) + await thread_messages(ada, "t1", limit=2)
    assert paged == await thread_messages(ada, "t1")


async def test_thread_names_its_running_turn_and_an_unknown_one_is_empty(
    ada: ApiUser, model: ModelServer, gate: Event
) -> None:
    model.script.append(says("Half ", "of it.").held(gate))
    running = asyncio.create_task(say(ada, "a thread: é", "Count"))
    await model.wait_for_requests()
    shown = (await ada.get(f"{API}/a%20thread%3A%20%C3%A9")).json()
    gate.set()
    turn_id = (await running)[0]["metadata"]["turnId"]

    assert (shown["threadId"], shown["activeTurnId"], len(shown["messages"])) == ("a thread: é", turn_id, 1)
    assert (await ada.get(f"{API}/unknown")).json() == {
        "threadId": "unknown",
        "messages": [],
        "activeTurnId": None,
        "interrupts": [],
    }
