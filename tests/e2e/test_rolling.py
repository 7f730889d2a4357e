"""Three replicas are replaced one after the other, under load: whoever asks again as they are told misses nothing."""

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

Answer = dict[str, Any]


@dataclass
class House:
    """The replicas that there are at the moment, and what their clients were answered."""

    home: Path
    environment: Environment
    token: str
    replicas: list[Replica] = field(default_factory=list)
    running: dict[str, AbstractContextManager[Replica]] = field(default_factory=dict)
    is_over: Event = field(default_factory=Event)
    turns: list[Answer] = field(default_factory=list)
    streams: list[list[TurnEvent]] = field(default_factory=list)
    tasks: list[Answer] = field(default_factory=list)
    reads: int = 0
    sent_again: int = 0
    refused: list[str] = field(default_factory=list)
    exit_codes: list[int | None] = field(default_factory=list)

    async def open(self) -> None:
        starting = running_service(home=self.home, environment=self.environment)
        replica = await asyncio.to_thread(starting.__enter__)
        self.running[replica.url] = starting
        self.replicas.append(replica)

    async def replace(self) -> None:
        """The oldest is told to end once another one has come; clients go on asking it until it has ended."""
        await self.open()
        oldest = self.replicas[0]
        oldest.process.terminate()
        self.exit_codes.append(await wait_for_exit(oldest))
        self.replicas.remove(oldest)
        await asyncio.to_thread(self.running.pop(oldest.url).__exit__, None, None, None)

    async def close(self) -> None:
        for starting in self.running.values():
            await asyncio.to_thread(starting.__exit__, None, None, None)


class Customer:
    """A client with a connection to one replica at a time, who goes to the next when told so."""

    _numbers: Iterator[int] = count()

    def __init__(self, house: House) -> None:
        self._house = house
        self._client = httpx2.AsyncClient(timeout=TIMEOUT_S, headers={"authorization": f"Bearer {house.token}"})
        self._choice = next(self._numbers)

    async def again_and_again(self, act: Callable[[], Awaitable[None]]) -> None:
        async with self._client:
            while not self._house.is_over.is_set():
                await act()
                await asyncio.sleep(PAUSE_S)

    async def take_turn(self) -> None:
        headers = {"idempotency-key": str(uuid4())}
        answer = await self._insist("POST", "chat", json={"message": MESSAGE}, headers=headers)
        if answer.status_code == 200:
            self._house.turns.append(answer.json())
        else:
            self._house.refused.append(answer.text)

    async def follow_turn(self) -> None:
        """From the first event to the last one, wherever they come from."""
        events: list[TurnEvent] = []
        key = {"idempotency-key": str(uuid4())}
        while not events or events[-1].name not in LAST:
            try:
                await (self._go_on(events) if events else self._begin(key, events))
            except httpx2.TransportError:
                await self._go_elsewhere()
        self._house.streams.append(events)

    async def add_task(self) -> None:
        """Without a key: what was not answered may have happened, and is not sent again."""
        try:
            answer = await self._ask("POST", "tasks", json={"title": "over HTTP"})
        except httpx2.TransportError:
            await self._go_elsewhere()
            return
        if answer.status_code == 201:
            self._house.tasks.append(answer.json())
        else:
            self._house.refused.append(answer.text)

    async def read(self) -> None:
        answer = await self._insist("GET", "tasks?limit=1")
        self._house.reads += answer.status_code == 200
        if answer.status_code != 200:
            self._house.refused.append(answer.text)

    async def _begin(self, key: dict[str, str], events: list[TurnEvent]) -> None:
        headers = {**ACCEPT_EVENTS, **key}
        said = self._client.stream("POST", self._path("chat"), json={"message": MESSAGE}, headers=headers)
        async with said as response:
            if response.status_code == 409:
                # It is running: the turn that the problem names is followed.
                turn_id = json.loads(await response.aread())["turn_id"]
                await self._read(f"turns/{turn_id}/events", events)
            elif response.status_code == 503:
                await self._go_elsewhere()
            else:
                await self._keep(response, events)

    async def _go_on(self, events: list[TurnEvent]) -> None:
        await self._read(f"turns/{events[0].data['turn_id']}/events", events)

    async def _read(self, below: str, events: list[TurnEvent]) -> None:
        headers = {"last-event-id": str(events[-1].seq if events else 0)}
        async with self._client.stream("GET", self._path(below), headers=headers) as response:
            if response.status_code == 503:
                await self._go_elsewhere()
                return
            await self._keep(response, events)

    async def _keep(self, response: httpx2.Response, events: list[TurnEvent]) -> None:
        """Those that came before a connection broke are not asked for again."""
        assert response.status_code == 200, response.status_code
        async for event in read_events(response):
            events.append(event)  # noqa: PERF401 # a list that is made at the end is lost with the connection

    async def _insist(self, method: str, below: str, **given: Any) -> httpx2.Response:
        """Ask again as one is told: after a connection that broke, a 503 with Retry-After, and a turn that runs."""
        async with asyncio.timeout(TIMEOUT_S):
            while True:
                with suppress(httpx2.TransportError):
                    answer = await self._ask(method, below, **given)
                    is_running = answer.status_code == 409 and answer.json()["code"] == "turn-in-progress"
                    if not is_running and not (answer.status_code == 503 and "retry-after" in answer.headers):
                        return answer
                await self._go_elsewhere()

    async def _ask(self, method: str, below: str, **given: Any) -> httpx2.Response:
        return await self._client.request(method, self._path(below), **given)

    async def _go_elsewhere(self) -> None:
        self._choice += 1
        self._house.sent_again += 1
        await asyncio.sleep(PAUSE_S)

    def _path(self, below: str) -> str:
        replicas = self._house.replicas
        return f"{replicas[self._choice % len(replicas)].url}/api/ada/{below}"


async def test_a_rolling_restart_fails_no_request_that_is_sent_again_as_told(home: Path, postgresql_url: str) -> None:
    """No turn is lost, none happens twice, and what was acknowledged is there."""
    environment = {**BASE_SETTINGS, "LATCHKEY_DATABASE_URL": postgresql_url, "LATCHKEY_TURNS_PER_USER": "64"}
    house = House(home, environment, issue_token("ada", home, BASE_SETTINGS))
    try:
        await asyncio.gather(*(house.open() for _ in range(REPLICAS)))
        acts = [Customer.take_turn, Customer.take_turn, Customer.follow_turn, Customer.follow_turn]
        customers = [(Customer(house), act) for act in [*acts, Customer.add_task, Customer.read]]
        shopping = [
            asyncio.create_task(customer.again_and_again(partial(act, customer))) for customer, act in customers
        ]
        for _ in range(REPLICAS):
            await house.replace()
        house.is_over.set()
        await asyncio.gather(*shopping)
        tasks, conversations = await everything(house, "tasks"), await everything(house, "conversations")
        messages = [await everything(house, f"conversations/{one['id']}/messages") for one in conversations]
    finally:
        await house.close()
    made = [task for task in tasks if task["title"] == "in a turn"]

    assert house.refused == []
    assert house.exit_codes == [0] * REPLICAS
    assert [events[-1].name for events in house.streams if events[-1].name != "turn.completed"] == []
    assert [events for events in house.streams if [event.seq for event in events] != numbers(events)] == []
    assert len(conversations) == len(house.turns) + len(house.streams) == len(made)
    assert [[one["role"] for one in said] for said in messages if len(said) != 2] == []
    assert {task["id"] for task in house.tasks} <= {task["id"] for task in tasks}
    assert min(len(house.turns), len(house.streams), len(house.tasks), house.reads, house.sent_again) > 0


def numbers(events: list[TurnEvent]) -> list[int]:
    return list(range(1, len(events) + 1))


async def everything(house: House, listing: str) -> list[Answer]:
    """All pages of a listing."""
    found: list[Answer] = []
    page: Answer = {"next_cursor": None}
    while not found or page["next_cursor"]:
        cursor = {"cursor": page["next_cursor"]} if found else {}
        asked = {"params": {"limit": 200, **cursor}}
        page = house.replicas[0].request("GET", f"/api/ada/{listing}", house.token, **asked).json()
        found += page["items"]
    return found
