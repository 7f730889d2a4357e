"""`kill -9`, at any moment: what was answered is there afterwards, and what was half done is nowhere."""

import asyncio
from asyncio import Event
from collections.abc import Callable
from pathlib import Path
from threading import Thread
from typing import Any

import httpx2
import pytest

from tests.e2e.program import Environment, Replica, served
from tests.fakes.model_script import says
from tests.fakes.model_server import ModelServer, model_server
from tests.patience import eventually_sync

Answer = dict[str, Any]
Write = Callable[[Replica, str], Answer]

WRITERS = 3
ENOUGH = 30


def test_nothing_that_was_answered_is_lost(home: Path, configured: Environment, token: str) -> None:
    """The log of what was acknowledged is the oracle. Writers write until nobody answers them any more."""
    tasks: list[Answer] = []
    turns: list[Answer] = []
    with served(home=home, environment=configured) as replica:
        writers = [writing(add_task, replica, token, tasks) for _ in range(WRITERS)]
        writers += [writing(take_turn, replica, token, turns) for _ in range(WRITERS)]
        eventually_sync(lambda: len(tasks) >= ENOUGH and len(turns) >= ENOUGH)
        replica.process.kill()
        for writer in writers:
            writer.join()
    with served(home=home, environment=configured) as again:
        found = {task["id"]: task for task in everything(again, token, "tasks")}
        heard = {turn["turn_id"]: messages(again, token, turn) for turn in turns}

    assert [task for task in tasks if found.get(task["id"]) != task] == []
    assert [turn for turn in turns if heard[turn["turn_id"]][1:] != [turn["message"]]] == []
    assert [turn for turn in turns if turn["tool_calls"][0]["result"]["id"] not in found] == []


def test_what_a_turn_had_not_finished_is_interrupted_and_its_conversation_goes_on(
    home: Path, configured: Environment, token: str
) -> None:
    """Once its lease has passed, and without anybody having to do anything."""
    asyncio.run(_die_in_a_turn(home, {**configured, "LATCHKEY_TURN_LEASE_S": "1"}, token))


async def _die_in_a_turn(home: Path, environment: Environment, token: str) -> None:
    async with model_server() as model:
        model.script += [says("Half an ").held(Event()), says("Where were we?")]
        given = {**environment, "LATCHKEY_AGENT": "openai", "LATCHKEY_MODEL": "x", "OPENAI_BASE_URL": model.base_url}
        await asyncio.to_thread(_kill_in_a_turn, home, given, token, model)
        await asyncio.to_thread(_find_it_interrupted, home, given, token)


def _kill_in_a_turn(home: Path, environment: Environment, token: str, model: ModelServer) -> None:
    with served(home=home, environment=environment) as replica:
        talker = Thread(target=_hang_up_on, args=(replica, token))
        talker.start()
        eventually_sync(lambda: len(model.requests) == 1)
        replica.process.kill()
        talker.join()


def _hang_up_on(replica: Replica, token: str) -> None:
    with pytest.raises(httpx2.TransportError):
        replica.ask("POST", "/api/ada/chat", token, json={"message": "hello"})


def _find_it_interrupted(home: Path, environment: Environment, token: str) -> None:
    with served(home=home, environment=environment) as again:
        (conversation,) = everything(again, token, "conversations")
        path = f"conversations/{conversation['id']}"
        eventually_sync(lambda: everything(again, token, f"{path}/turns")[0]["status"] == "interrupted")
        (own,) = everything(again, token, "context-tokens")
        (turn,) = everything(again, token, f"{path}/turns")
        said = {"message": "Hello?", "conversation_id": conversation["id"]}
        answer = again.ask("POST", "/api/ada/chat", token, json=said).json()

    assert own["expires_at"] == turn["finished_at"]
    assert [answer["message"]["seq"], answer["response"]] == [3, "Where were we?"]


def writing(write: Write, replica: Replica, token: str, acknowledged: list[Answer]) -> Thread:
    """A writer that is at work, and notes what it was answered."""

    def run() -> None:
        while True:
            try:
                acknowledged.append(write(replica, token))
            except httpx2.TransportError:
                return

    thread = Thread(target=run)
    thread.start()
    return thread


def add_task(replica: Replica, token: str) -> Answer:
    answer = replica.ask("POST", "/api/ada/tasks", token, json={"title": "over HTTP"})
    assert answer.status_code == 201, answer.text
    task: Answer = answer.json()
    return task


def take_turn(replica: Replica, token: str) -> Answer:
    answer = replica.ask("POST", "/api/ada/chat", token, json={"message": '/add_task {"title": "in a turn"}'})
    assert answer.status_code == 200, answer.text
    turn: Answer = answer.json()
    return turn


def messages(replica: Replica, token: str, turn: Answer) -> list[Answer]:
    return everything(replica, token, f"conversations/{turn['conversation_id']}/messages")


def everything(replica: Replica, token: str, listing: str) -> list[Answer]:
    """All pages of a listing."""
    found: list[Answer] = []
    cursor: dict[str, str] = {}
    while True:
        page = replica.ask("GET", f"/api/ada/{listing}", token, params={"limit": 200, **cursor}).json()
        found += page["items"]
        if page["next_cursor"] is None:
            return found
        cursor = {"cursor": page["next_cursor"]}
