"""Reads everything that the service shows about a user, over HTTP."""

import asyncio
from collections import Counter
from dataclasses import dataclass
from typing import Any, Self

import httpx2

from tests.chaos.history import History, Json, TurnEvent

CONCURRENT_REQUESTS = 8
EVENT_END = b"\n\n"


class TemporarilyUnavailable(Exception):
    """The replica answered 503 with `Retry-After`."""


@dataclass
class Snapshot:
    """All data of one user. `messages` are by conversation id, `events` by turn id."""

    messages: dict[str, list[Json]]
    turns: dict[str, Json]
    events: dict[str, list[TurnEvent]]
    tasks: list[Json]
    artifacts: list[Json]
    tokens: list[Json]

    def add_to(self, history: History) -> None:
        """Record the turns and events, which must never change from now on."""
        for turn in self.turns.values():
            history.add_turn(turn)
        for events in self.events.values():
            for event in events:
                history.add_event(event)

    @property
    def titles(self) -> Counter[str]:
        """The number of tasks and artifacts with each title."""
        return Counter(entity["title"] for entity in [*self.tasks, *self.artifacts])

    def messages_of_turn(self, turn_id: str, role: str) -> list[Json]:
        messages = self.messages[self.turns[turn_id]["conversation_id"]]
        return [message for message in messages if (message["turn_id"], message["role"]) == (turn_id, role)]

    def tag(self, turn: Json) -> str:
        """The tag in the user message of the turn."""
        texts: list[str] = [message["content"] for message in self.messages_of_turn(turn["id"], "user")]
        return "".join(texts).partition(" ")[0].removeprefix("#")


class SnapshotReader:
    """Reads the data of one user from one replica."""

    def __init__(self, url: str, user: str, token: str) -> None:
        headers = {"authorization": f"Bearer {token}"}
        self.http = httpx2.AsyncClient(base_url=f"{url}/api/{user}/", headers=headers, timeout=60)
        self._limiter = asyncio.Semaphore(CONCURRENT_REQUESTS)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.http.aclose()

    async def snapshot(self) -> Snapshot:
        conversations = [conversation["id"] for conversation in await self.items("conversations")]
        messages = await asyncio.gather(*(self.items(f"conversations/{id}/messages") for id in conversations))
        turns = await asyncio.gather(*(self.items(f"conversations/{id}/turns") for id in conversations))
        turns_by_id = {turn["id"]: turn for page in turns for turn in page}
        events = await asyncio.gather(*(self.events(id) for id in turns_by_id))
        return Snapshot(
            dict(zip(conversations, messages, strict=True)),
            turns_by_id,
            dict(zip(turns_by_id, events, strict=True)),
            await self.items("tasks"),
            await self.items("artifacts"),
            await self.items("context-tokens"),
        )

    async def items(self, collection: str) -> list[Json]:
        """The items of all pages."""
        items: list[Json] = []
        cursor: dict[str, str] = {}
        while True:
            page = await self.get(collection, params={"limit": 200, **cursor})
            items += page["items"]
            if page["next_cursor"] is None:
                return items
            cursor = {"cursor": page["next_cursor"]}

    async def get(self, path: str, **options: Any) -> Json:
        """Raises `TemporarilyUnavailable` if the replica asks for a retry."""
        async with self._limiter:
            response = await self.http.get(path, **options)
        if response.status_code == httpx2.codes.SERVICE_UNAVAILABLE and "retry-after" in response.headers:
            raise TemporarilyUnavailable(response.text)
        assert response.status_code == httpx2.codes.OK, response.text
        body: Json = response.json()
        return body

    async def events(self, turn_id: str) -> list[TurnEvent]:
        """All events of a finished turn."""
        async with self._limiter:
            response = await self.http.get(f"turns/{turn_id}/events")
        assert response.status_code == httpx2.codes.OK, response.text
        return [TurnEvent(raw) for raw in response.content.split(EVENT_END) if raw and not raw.startswith(b":")]
