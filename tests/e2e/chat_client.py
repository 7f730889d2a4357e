"""An async client of a replica for the user `ada`, and functions that wait for states of replicas and models."""

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import httpx2

from tests.e2e.service_process import Environment, Replica
from tests.fakes.model_server import ModelServer
from tests.polling import TIMEOUT_S, wait_until

ACCEPT_EVENTS = {"accept": "text/event-stream"}


@dataclass(frozen=True)
class Event:
    """One server-sent event."""

    seq: int
    name: str
    data: dict[str, Any]


@dataclass(frozen=True)
class ChatClient:
    """A client of one replica for the user `ada`. Paths are relative to `/api/ada/`."""

    replica: Replica
    client: httpx2.AsyncClient

    async def request(self, method: str, below: str, **options: Any) -> httpx2.Response:
        return await self.client.request(method, f"/api/ada/{below}", **options)

    async def send(self, message: str = "hello", **options: Any) -> httpx2.Response:
        return await self.request("POST", "chat", json={"message": message}, **options)

    async def send_streaming(self, message: str = "hello", into: list[Event] | None = None) -> list[Event]:
        """Send a message and return the events up to the end. Each is appended to `into` as it arrives."""
        events = [] if into is None else into
        log_text = self.client.stream("POST", "/api/ada/chat", json={"message": message}, headers=ACCEPT_EVENTS)
        async with log_text as response:
            assert response.status_code == 200
            async for event in read_events(response):
                events.append(event)  # a list that is made at the end is lost with the connection
        return events

    async def follow_turn(self, turn_id: str, after: int = 0, into: list[Event] | None = None) -> list[Event]:
        """The events after number `after`, up to the end of the stream. Each is appended to `into` as it arrives."""
        events = [] if into is None else into
        async with self.client.stream("GET", f"/api/ada/turns/{turn_id}/events?after={after}") as response:
            assert response.status_code == 200
            async for event in read_events(response):
                events.append(event)
        return events

    async def items(self, listing: str) -> list[dict[str, Any]]:
        items: list[dict[str, Any]] = (await self.request("GET", listing)).json()["items"]
        return items

    async def only_turn(self) -> dict[str, Any]:
        """Wait for the first turn and return it."""
        await wait_until(self._has_turn)
        (conversation,) = await self.items("conversations")
        (turn,) = await self.items(f"conversations/{conversation['id']}/turns")
        return turn

    async def _has_turn(self) -> bool:
        return bool(await self.items("conversations"))


@asynccontextmanager
async def chat_client(replica: Replica, token: str) -> AsyncIterator[ChatClient]:
    headers = {"authorization": f"Bearer {token}"}
    async with httpx2.AsyncClient(base_url=replica.url, headers=headers, timeout=TIMEOUT_S) as client:
        yield ChatClient(replica, client)


async def read_events(response: httpx2.Response) -> AsyncIterator[Event]:
    """Yield each event as soon as it is complete; skip comments."""
    fields: dict[str, str] = {}
    async for line in response.aiter_lines():
        name, _, value = line.partition(": ")
        if line and name:
            fields[name] = value
        elif fields:
            if "event" in fields:
                yield Event(int(fields["id"]), fields["event"], json.loads(fields["data"]))
            fields = {}


def openai_settings(model: ModelServer, environment: Environment, **variables: str) -> Environment:
    """The settings of a service that uses that model."""
    agent = {"LATCHKEY_AGENT": "openai", "LATCHKEY_MODEL": "x", "OPENAI_BASE_URL": model.base_url}
    return {**environment, **agent, **variables}


async def wait_for_drain(replica: Replica) -> None:
    """Wait until the log of the replica says that it is draining."""

    async def is_draining() -> bool:
        return "draining" in replica.log_text

    await wait_until(is_draining)


async def wait_for_requests(model: ModelServer, times: int = 1) -> None:
    async def has_been() -> bool:
        return len(model.requests) >= times

    await wait_until(has_been)


async def wait_for_exit(replica: Replica) -> int | None:
    """Wait for the end of the process and return its exit code."""

    async def has_ended() -> bool:
        return replica.process.exitcode is not None

    await wait_until(has_ended)
    return replica.process.exitcode
