"""`kill -9` during concurrent writes: acknowledged writes are stored. `tests/chaos` injects more faults."""

from collections.abc import Callable
from pathlib import Path
from threading import Thread
from typing import Any

import httpx2

from tests.e2e.service_process import Environment, Replica, running_service
from tests.polling import wait_until_sync

Answer = dict[str, Any]
Write = Callable[[Replica, str], Answer]

WRITERS = 3
ENOUGH = 30


def test_kill_loses_no_acknowledged_write(home: Path, configured: Environment, token: str) -> None:
    """Writers write until the connection breaks. Every write that was acknowledged must be found afterwards."""
    tasks: list[Answer] = []
    turns: list[Answer] = []
    with running_service(home=home, environment=configured) as replica:
        writers = [writing(add_task, replica, token, tasks) for _ in range(WRITERS)]
        writers += [writing(take_turn, replica, token, turns) for _ in range(WRITERS)]
        wait_until_sync(lambda: len(tasks) >= ENOUGH and len(turns) >= ENOUGH)
        replica.process.kill()
        for writer in writers:
            writer.join()
    with running_service(home=home, environment=configured) as again:
        items = {task["id"]: task for task in everything(again, token, "tasks")}
        messages_by_turn = {turn["turn_id"]: messages(again, token, turn) for turn in turns}

    assert [task for task in tasks if items.get(task["id"]) != task] == []
    assert [turn for turn in turns if messages_by_turn[turn["turn_id"]][1:] != [turn["message"]]] == []
    assert [turn for turn in turns if turn["tool_calls"][0]["result"]["id"] not in items] == []


def writing(write: Write, replica: Replica, token: str, acknowledged: list[Answer]) -> Thread:
    """Start a thread that writes until the connection breaks, and records each response."""

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
    answer = replica.request("POST", "/api/ada/tasks", token, json={"title": "over HTTP"})
    assert answer.status_code == 201, answer.text
    task: Answer = answer.json()
    return task


def take_turn(replica: Replica, token: str) -> Answer:
    answer = replica.request("POST", "/api/ada/chat", token, json={"message": '/add_task {"title": "in a turn"}'})
    assert answer.status_code == 200, answer.text
    turn: Answer = answer.json()
    return turn


def messages(replica: Replica, token: str, turn: Answer) -> list[Answer]:
    return everything(replica, token, f"conversations/{turn['conversation_id']}/messages")


def everything(replica: Replica, token: str, listing: str) -> list[Answer]:
    """The items of all pages."""
    items: list[Answer] = []
    cursor: dict[str, str] = {}
    while True:
        page = replica.request("GET", f"/api/ada/{listing}", token, params={"limit": 200, **cursor}).json()
        items += page["items"]
        if page["next_cursor"] is None:
            return items
        cursor = {"cursor": page["next_cursor"]}
