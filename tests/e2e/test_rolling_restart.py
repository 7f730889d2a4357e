"""Three replicas are replaced one by one under load. Clients that retry as documented lose nothing."""

import asyncio
import json
from asyncio import Event
from collections.abc import Awaitable, Callable, Iterator
from contextlib import AbstractContextManager, suppress
from dataclasses import dataclass, field
from functools import partial
from itertools import count
from pathlib import Path
from typing import Any
from uuid import uuid4

import httpx2

from tests.e2e.chat_client import ACCEPT_EVENTS, read_events, wait_for_exit
from tests.e2e.chat_client import Event as TurnEvent
from tests.e2e.service_process import BASE_SETTINGS, Environment, Replica, issue_token, running_service
from tests.polling import TIMEOUT_S

REPLICAS = 3
MESSAGE = '/add_task {"title": "in a turn"}'
PAUSE_S = 0.05
LAST = {"turn.completed", "turn.failed", "turn.cancelled", "turn.interrupted"}

Json = dict[str, Any]


@dataclass
class Deployment:
    """The running replicas, and the responses that their clients have received."""

    home: Path
    environment: Environment
    token: str
    replicas: list[Replica] = field(default_factory=list)
    running: dict[str, AbstractContextManager[Replica]] = field(default_factory=dict)
    is_over: Event = field(default_factory=Event)
    turns: list[Json] = field(default_factory=list)
    streams: list[list[TurnEvent]] = field(default_factory=list)
    tasks: list[Json] = field(default_factory=list)
    reads: int = 0
    retries: int = 0
    refused: list[str] = field(default_factory=list)
    exit_codes: list[int | None] = field(default_factory=list)

    async def add_replica(self) -> None:
        starting = running_service(home=self.home, environment=self.environment)
        replica = await asyncio.to_thread(starting.__enter__)
        self.running[replica.url] = starting
        self.replicas.append(replica)

    async def replace(self) -> None:
        """Start a new replica, then terminate the oldest one. Clients use it until it has ended."""
        await self.add_replica()
        oldest = self.replicas[0]
        oldest.process.terminate()
        self.exit_codes.append(await wait_for_exit(oldest))
        self.replicas.remove(oldest)
        await asyncio.to_thread(self.running.pop(oldest.url).__exit__, None, None, None)

    async def close(self) -> None:
        for starting in self.running.values():
            await asyncio.to_thread(starting.__exit__, None, None, None)


class RetryingClient:
    """A client that is connected to one replica and moves to the next one on an error."""

    _numbers: Iterator[int] = count()

    def __init__(self, deployment: Deployment) -> None:
        self._deployment = deployment
        self._client = httpx2.AsyncClient(timeout=TIMEOUT_S, headers={"authorization": f"Bearer {deployment.token}"})
        self._choice = next(self._numbers)

    async def repeat(self, action: Callable[[], Awaitable[None]]) -> None:
        async with self._client:
            while not self._deployment.is_over.is_set():
                await action()
                await asyncio.sleep(PAUSE_S)

    async def run_turn(self) -> None:
        headers = {"idempotency-key": str(uuid4())}
        answer = await self._send_with_retries("POST", "chat", json={"message": MESSAGE}, headers=headers)
        if answer.status_code == 200:
            self._deployment.turns.append(answer.json())
        else:
            self._deployment.refused.append(answer.text)

    async def follow_turn(self) -> None:
        """Read one turn from its first to its last event, from several replicas if necessary."""
        events: list[TurnEvent] = []
        key = {"idempotency-key": str(uuid4())}
        while not events or events[-1].name not in LAST:
            try:
                await (self._resume(events) if events else self._start(key, events))
            except httpx2.TransportError:
                await self._next_replica()
        self._deployment.streams.append(events)

    async def add_task(self) -> None:
        """Without an idempotency key, so a request without a response is not retried."""
        try:
            answer = await self._request("POST", "tasks", json={"title": "over HTTP"})
        except httpx2.TransportError:
            await self._next_replica()
            return
        if answer.status_code == 201:
            self._deployment.tasks.append(answer.json())
        else:
            self._deployment.refused.append(answer.text)

    async def read(self) -> None:
        answer = await self._send_with_retries("GET", "tasks?limit=1")
        self._deployment.reads += answer.status_code == 200
        if answer.status_code != 200:
            self._deployment.refused.append(answer.text)

    async def _start(self, key: dict[str, str], events: list[TurnEvent]) -> None:
        headers = {**ACCEPT_EVENTS, **key}
        turn_messages = self._client.stream("POST", self._path("chat"), json={"message": MESSAGE}, headers=headers)
        async with turn_messages as response:
            if response.status_code == 409:
                # The turn runs already: the problem has its id.
                turn_id = json.loads(await response.aread())["turn_id"]
                await self._read(f"turns/{turn_id}/events", events)
            elif response.status_code == 503:
                await self._next_replica()
            else:
                await self._append(response, events)

    async def _resume(self, events: list[TurnEvent]) -> None:
        await self._read(f"turns/{events[0].data['turn_id']}/events", events)

    async def _read(self, below: str, events: list[TurnEvent]) -> None:
        headers = {"last-event-id": str(events[-1].seq if events else 0)}
        async with self._client.stream("GET", self._path(below), headers=headers) as response:
            if response.status_code == 503:
                await self._next_replica()
                return
            await self._append(response, events)

    async def _append(self, response: httpx2.Response, events: list[TurnEvent]) -> None:
        """Append each event at once, so that those received before a disconnect are not lost."""
        assert response.status_code == 200, response.status_code
        async for event in read_events(response):
            events.append(event)  # noqa: PERF401 # a list that is made at the end is lost with the connection

    async def _send_with_retries(self, method: str, below: str, **options: Any) -> httpx2.Response:
        """Retry as documented: after a disconnect, a 503 with `Retry-After`, and a turn in progress."""
        async with asyncio.timeout(TIMEOUT_S):
            while True:
                with suppress(httpx2.TransportError):
                    answer = await self._request(method, below, **options)
                    is_running = answer.status_code == 409 and answer.json()["code"] == "turn-in-progress"
                    if not is_running and not (answer.status_code == 503 and "retry-after" in answer.headers):
                        return answer
                await self._next_replica()

    async def _request(self, method: str, below: str, **options: Any) -> httpx2.Response:
        return await self._client.request(method, self._path(below), **options)

    async def _next_replica(self) -> None:
        self._choice += 1
        self._deployment.retries += 1
        await asyncio.sleep(PAUSE_S)

    def _path(self, below: str) -> str:
        replicas = self._deployment.replicas
        return f"{replicas[self._choice % len(replicas)].url}/api/ada/{below}"


async def test_rolling_restart_loses_no_retried_request(home: Path, postgresql_url: str) -> None:
    """No turn is lost or duplicated, and every acknowledged write is stored."""
    environment = {**BASE_SETTINGS, "LATCHKEY_DATABASE_URL": postgresql_url, "LATCHKEY_TURNS_PER_USER": "64"}
    deployment = Deployment(home, environment, issue_token("ada", home, BASE_SETTINGS))
    try:
        await asyncio.gather(*(deployment.add_replica() for _ in range(REPLICAS)))
        actions = [
            RetryingClient.run_turn,
            RetryingClient.run_turn,
            RetryingClient.follow_turn,
            RetryingClient.follow_turn,
        ]
        clients = [
            (RetryingClient(deployment), action) for action in [*actions, RetryingClient.add_task, RetryingClient.read]
        ]
        running = [asyncio.create_task(client.repeat(partial(action, client))) for client, action in clients]
        for _ in range(REPLICAS):
            await deployment.replace()
        deployment.is_over.set()
        await asyncio.gather(*running)
        tasks, conversations = await everything(deployment, "tasks"), await everything(deployment, "conversations")
        messages = [await everything(deployment, f"conversations/{one['id']}/messages") for one in conversations]
    finally:
        await deployment.close()
    made = [task for task in tasks if task["title"] == "in a turn"]

    assert deployment.refused == []
    assert deployment.exit_codes == [0] * REPLICAS
    assert [events[-1].name for events in deployment.streams if events[-1].name != "turn.completed"] == []
    assert [events for events in deployment.streams if [event.seq for event in events] != expected_seqs(events)] == []
    assert len(conversations) == len(deployment.turns) + len(deployment.streams) == len(made)
    assert [[one["role"] for one in turn_messages] for turn_messages in messages if len(turn_messages) != 2] == []
    assert {task["id"] for task in deployment.tasks} <= {task["id"] for task in tasks}
    assert (
        min(len(deployment.turns), len(deployment.streams), len(deployment.tasks), deployment.reads, deployment.retries)
        > 0
    )


def expected_seqs(events: list[TurnEvent]) -> list[int]:
    return list(range(1, len(events) + 1))


async def everything(deployment: Deployment, listing: str) -> list[Json]:
    """The items of all pages."""
    items: list[Json] = []
    page: Json = {"next_cursor": None}
    while not items or page["next_cursor"]:
        cursor = {"cursor": page["next_cursor"]} if items else {}
        options = {"params": {"limit": 200, **cursor}}
        page = deployment.replicas[0].request("GET", f"/api/ada/{listing}", deployment.token, **options).json()
        items += page["items"]
    return items
