"""A client of server-sent events that takes nothing but what the contract says."""

import json
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import httpx2

from tests.integration.http.service import Person

COMMENT = re.compile(rb":[^\r\n]*")
EVENT = re.compile(rb"id: ([1-9][0-9]*)\nevent: ([a-z_]+\.[a-z]+)\ndata: ([^\r\n]+)")
LAST = {"turn.completed", "turn.failed", "turn.cancelled", "turn.interrupted"}


@dataclass(frozen=True)
class ServerSentEvent:
    """`raw` is what was on the wire, its end included."""

    seq: int
    name: str
    data: dict[str, Any]
    raw: bytes

    @classmethod
    def read(cls, raw: bytes) -> "ServerSentEvent":
        """Raises `AssertionError` for anything but `id`, `event` and `data`, in that order, in lines that LF ends."""
        found = EVENT.fullmatch(raw.removesuffix(b"\n\n"))
        assert found, raw
        seq, name, data = int(found[1]), found[2].decode(), json.loads(found[3])
        assert data["seq"] == seq
        return cls(seq, name, data, raw)

    @property
    def is_last(self) -> bool:
        return self.name in LAST

    @property
    def told(self) -> dict[str, Any]:
        """What happened, without the turn and the number."""
        return {name: value for name, value in self.data.items() if name not in {"turn_id", "seq"}}


class EventSource:
    """The events of one response, as they come."""

    def __init__(self, response: httpx2.Response) -> None:
        self.response = response
        self.comments = 0
        self._chunks = response.aiter_raw()
        self._unread = b""

    async def next(self) -> ServerSentEvent:
        """The next one. Raises `EOFError` if the stream has closed, which it may only between two events."""
        while (event := self._event()) is None:
            try:
                self._unread += await anext(self._chunks)
            except StopAsyncIteration:
                assert self._unread == b""
                raise EOFError from None
        return event

    async def take(self, count: int) -> list[ServerSentEvent]:
        return [await self.next() for _ in range(count)]

    async def until(self, name: str) -> list[ServerSentEvent]:
        """All up to the next one of that name."""
        events = [await self.next()]
        while events[-1].name != name:
            events.append(await self.next())
        return events

    async def rest(self) -> list[ServerSentEvent]:
        """All that follow, until the server has closed the stream; they are numbered without gaps, and one is last."""
        events: list[ServerSentEvent] = []
        try:
            while True:
                events.append(await self.next())
        except EOFError:
            assert [event.is_last for event in events] == [False] * (len(events) - 1) + [True] * bool(events)
            assert [event.seq for event in events] == [events[0].seq + nth for nth in range(len(events))]
            return events

    async def comment(self) -> None:
        """Wait for one. Raises `AssertionError` if an event comes first."""
        before = self.comments
        while self.comments == before:
            self._unread += await anext(self._chunks)
            assert self._event() is None

    def _event(self) -> ServerSentEvent | None:
        """The next one that has come whole."""
        while b"\n\n" in self._unread:
            block, _, self._unread = self._unread.partition(b"\n\n")
            if not COMMENT.fullmatch(block):
                return ServerSentEvent.read(block + b"\n\n")
            self.comments += 1
        return None


@asynccontextmanager
async def chatting(person: Person, message: str, **body: Any) -> AsyncIterator[EventSource]:
    """A message that is answered as events; leaving closes the socket. `headers` are the request's."""
    headers = {"accept": "text/event-stream", **body.pop("headers", {})}
    async with person.stream("POST", "chat", json={"message": message, **body}, headers=headers) as response:
        yield await _opened(response)


@asynccontextmanager
async def following(person: Person, turn_id: str, **given: Any) -> AsyncIterator[EventSource]:
    """The events of a turn; leaving closes the socket."""
    async with person.stream("GET", f"turns/{turn_id}/events", **given) as response:
        yield await _opened(response)


async def replayed(person: Person, turn_id: str, **given: Any) -> list[ServerSentEvent]:
    """All the events of a turn, to its end."""
    async with following(person, turn_id, **given) as source:
        return await source.rest()


def joined(events: list[ServerSentEvent]) -> bytes:
    return b"".join(event.raw for event in events)


def text_of(events: list[ServerSentEvent]) -> str:
    """What the deltas say, joined."""
    return "".join(event.data["text"] for event in events if event.name == "message.delta")


def names_of(events: list[ServerSentEvent]) -> list[str]:
    return [event.name for event in events]


async def _opened(response: httpx2.Response) -> EventSource:
    assert response.status_code == 200, await response.aread()
    assert response.headers["content-type"].partition(";")[0] == "text/event-stream"
    assert response.headers["x-accel-buffering"] == "no"
    assert response.headers["cache-control"] == "no-store"
    return EventSource(response)
