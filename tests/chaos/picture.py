"""Everything that the service shows of a user, read over HTTP."""

import asyncio
from collections import Counter
from dataclasses import dataclass
from typing import Any, Self

import httpx2

from tests.chaos.record import Json, Record, TurnEvent

AT_ONCE = 8
WRITTEN = b"\n\n"


@dataclass
class Picture:
    """`messages` by conversation, `events` by turn."""

    messages: dict[str, list[Json]]
    turns: dict[str, Json]
    events: dict[str, list[TurnEvent]]
    tasks: list[Json]
    tokens: list[Json]

    def remember_in(self, record: Record) -> None:
        """What it shows of turns that have ended is true from now on."""
        for turn in self.turns.values():
            record.show(turn)
        for events in self.events.values():
            for event in events:
                record.hear(event)

    @property
    def titles(self) -> Counter[str]:
        """How many tasks there are of each title."""
        return Counter(task["title"] for task in self.tasks)

    def of_turn(self, turn_id: str, role: str) -> list[Json]:
        """The messages of one side in a turn."""
        conversation = self.messages[self.turns[turn_id]["conversation_id"]]
        return [one for one in conversation if (one["turn_id"], one["role"]) == (turn_id, role)]


class Reader:
    """Reads as one user at one replica."""

    def __init__(self, url: str, user: str, token: str) -> None:
        headers = {"authorization": f"Bearer {token}"}
        self.http = httpx2.AsyncClient(base_url=f"{url}/api/{user}/", headers=headers, timeout=60)
        self._some = asyncio.Semaphore(AT_ONCE)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.http.aclose()

    async def picture(self) -> Picture:
        conversations = [one["id"] for one in await self.items("conversations")]
        of_each = await asyncio.gather(*(self.items(f"conversations/{id}/messages") for id in conversations))
        turns = await asyncio.gather(*(self.items(f"conversations/{id}/turns") for id in conversations))
        by_id = {turn["id"]: turn for some in turns for turn in some}
        events = await asyncio.gather(*(self.events(id) for id in by_id))
        return Picture(
            dict(zip(conversations, of_each, strict=True)),
            by_id,
            dict(zip(by_id, events, strict=True)),
            await self.items("tasks"),
            await self.items("context-tokens"),
        )

    async def items(self, listing: str) -> list[Json]:
        """All pages of a listing."""
        found: list[Json] = []
        cursor: dict[str, str] = {}
        while True:
            page = await self.get(listing, params={"limit": 200, **cursor})
            found += page["items"]
            if page["next_cursor"] is None:
                return found
            cursor = {"cursor": page["next_cursor"]}

    async def get(self, path: str, **given: Any) -> Json:
        async with self._some:
            answer = await self.http.get(path, **given)
        assert answer.status_code == httpx2.codes.OK, answer.text
        found: Json = answer.json()
        return found

    async def events(self, turn_id: str) -> list[TurnEvent]:
        """Those of a turn that has ended."""
        async with self._some:
            answer = await self.http.get(f"turns/{turn_id}/events")
        assert answer.status_code == httpx2.codes.OK, answer.text
        return [TurnEvent(raw) for raw in answer.content.split(WRITTEN) if raw and not raw.startswith(b":")]
