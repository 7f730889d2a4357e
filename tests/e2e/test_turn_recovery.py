"""A turn goes on in another process after `kill -9`: its tool calls are not repeated, and its client loses nothing."""

import asyncio
import json
import os
import signal
from asyncio import Event
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import httpx2
import pytest

from tests.e2e.chat_client import ACCEPT_EVENTS
from tests.e2e.service_process import BASE_SETTINGS, Environment, Replica, issue_token, running_service
from tests.fakes.model_script import calls, says
from tests.fakes.model_server import ModelServer, model_server
from tests.polling import TIMEOUT_S

CHAT = "/api/ada/chat"
MILK = ("add_task", '{"title": "Milk"}')


def with_model(environment: Environment, model: ModelServer, **variables: str) -> Environment:
    return {
        **environment,
        "LATCHKEY_AGENT": "openai",
        "LATCHKEY_MODEL": "fake",
        "OPENAI_API_KEY": "none",
        "OPENAI_BASE_URL": model.base_url,
        "LATCHKEY_TURN_LEASE_S": "3",
        **variables,
    }


@pytest.mark.parametrize("api", ["responses", "chat_completions"])
async def test_turn_goes_on_after_kill(home: Path, configured: Environment, token: str, api: str) -> None:
    release = Event()
    async with model_server() as model:
        environment = with_model(configured, model, LATCHKEY_OPENAI_API=api)
        model.script += [calls(MILK, saying=("Adding. ",)), says("I will n", "ever end").held(release), says("Added.")]
        with ExitStack() as stack:
            first = await asyncio.to_thread(stack.enter_context, running_service(home=home, environment=environment))
            events = await stream_until(first, token, lambda names: names.count("message.delta") == 2)
            first.process.kill()
            second = await asyncio.to_thread(stack.enter_context, running_service(home=home, environment=environment))
            rest = await follow(second, token, events[-1])
            tasks = (await request(second, token, "GET", "tasks")).json()["items"]
            turn = (await request(second, token, "GET", f"turns/{events[0]['turn_id']}")).json()
        release.set()

    names = [event["event"] for event in rest]
    assert list(dict.fromkeys(names)) == ["message.withdrawn", "turn.resumed", "message.delta", "turn.completed"]
    assert rest[-1]["response"] == "Adding. \n\nAdded."
    assert [task["title"] for task in tasks] == ["Milk"]
    assert (turn["status"], turn["attempt"], len(turn["tool_calls"])) == ("completed", 2, 1)
    conversation = model.requests[-1].conversation[1:]
    assert conversation[0][1] == "Buy milk"
    assert len(conversation) == 4, conversation


async def test_turn_is_handed_over_when_its_process_stops(home: Path, configured: Environment, token: str) -> None:
    release = Event()
    async with model_server() as model:
        environment = with_model(configured, model, LATCHKEY_DRAIN_S="1", LATCHKEY_TURN_LEASE_S="60")
        model.script += [calls(MILK), says("I will never end").held(release), says("Added.")]
        with ExitStack() as stack:
            first = await asyncio.to_thread(stack.enter_context, running_service(home=home, environment=environment))
            second = await asyncio.to_thread(stack.enter_context, running_service(home=home, environment=environment))
            events = await stream_until(first, token, lambda names: "tool_call.completed" in names)
            first.process.terminate()
            await asyncio.to_thread(first.process.join)
            rest = await follow(second, token, events[-1])
            turn = (await request(second, token, "GET", f"turns/{events[0]['turn_id']}")).json()
        release.set()

    resumed = next(event for event in rest if event["event"] == "turn.resumed")
    assert (resumed["attempt"], resumed["reason"]) == (2, "handover")
    assert rest[-1]["response"] == "Added."
    assert (turn["status"], len(turn["tool_calls"])) == ("completed", 1)


async def test_turn_of_a_stopped_process_goes_on_elsewhere_and_its_client_gets_the_answer(
    home: Path, postgresql_url: str
) -> None:
    """The process goes on after more than a lease, in the middle of its attempt, which writes nothing any more."""
    release, environment = Event(), {**BASE_SETTINGS, "LATCHKEY_DATABASE_URL": postgresql_url}
    token = issue_token("ada", home, BASE_SETTINGS)
    async with model_server() as model:
        settings = with_model(environment, model, LATCHKEY_TURN_LEASE_S="2")
        bread = calls(("add_task", '{"title": "Bread"}'), saying=("Also ", "bread. "))
        model.script += [calls(MILK, saying=("Adding. ",)), bread.held(release), says("Added."), says("Never said.")]
        with ExitStack() as stack:
            first = await asyncio.to_thread(stack.enter_context, running_service(home=home, environment=settings))
            second = await asyncio.to_thread(stack.enter_context, running_service(home=home, environment=settings))
            body = {"json": {"message": "Buy milk"}}
            waiting = asyncio.create_task(asyncio.to_thread(first.request, "POST", CHAT, token, **body))
            await model.wait_for_requests(2)
            turn = await only_turn(second, token)
            os.kill(pid_of(first), signal.SIGSTOP)
            events = await follow(second, token, {"turn_id": turn["id"], "seq": 0})
            os.kill(pid_of(first), signal.SIGCONT)
            release.set()
            answer = await waiting
            log = await follow(second, token, {"turn_id": turn["id"], "seq": 0})
            tasks = (await request(second, token, "GET", "tasks")).json()["items"]

    assert (answer.status_code, answer.json()["response"]) == (200, "Adding. \n\nAdded.")
    assert [event["reason"] for event in events if event["event"] == "turn.resumed"] == ["recovery"]
    assert log == events
    assert [task["title"] for task in tasks] == ["Milk"]


async def only_turn(replica: Replica, token: str) -> dict[str, Any]:
    (conversation,) = (await request(replica, token, "GET", "conversations")).json()["items"]
    (turn,) = (await request(replica, token, "GET", f"conversations/{conversation['id']}/turns")).json()["items"]
    return dict(turn)


def pid_of(replica: Replica) -> int:
    assert replica.process.pid
    return replica.process.pid


async def stream_until(replica: Replica, token: str, is_enough: Callable[[list[str]], bool]) -> list[dict[str, Any]]:
    """Send a message and return the events that arrive until there are enough."""
    headers = {"authorization": f"Bearer {token}", **ACCEPT_EVENTS}
    events: list[dict[str, Any]] = []
    async with (
        httpx2.AsyncClient(timeout=TIMEOUT_S, headers=headers) as client,
        client.stream("POST", f"{replica.url}/api/ada/chat", json={"message": "Buy milk"}) as response,
    ):
        async for event in parsed(response):
            events.append(event)
            if is_enough([event["event"] for event in events]):
                break
    return events


async def follow(replica: Replica, token: str, last: dict[str, Any]) -> list[dict[str, Any]]:
    headers = {"authorization": f"Bearer {token}", "last-event-id": str(last["seq"])}
    url = f"{replica.url}/api/ada/turns/{last['turn_id']}/events"
    async with (
        httpx2.AsyncClient(timeout=TIMEOUT_S, headers=headers) as client,
        client.stream("GET", url) as response,
    ):
        return [event async for event in parsed(response)]


async def parsed(response: httpx2.Response) -> Any:
    name = ""
    async for line in response.aiter_lines():
        if line.startswith("event: "):
            name = line.removeprefix("event: ")
        elif line.startswith("data: "):
            yield {"event": name, **json.loads(line.removeprefix("data: "))}


async def request(replica: Replica, token: str, method: str, path: str) -> httpx2.Response:
    async with httpx2.AsyncClient(timeout=TIMEOUT_S) as client:
        return await client.request(
            method, f"{replica.url}/api/ada/{path}", headers={"authorization": f"Bearer {token}"}
        )
