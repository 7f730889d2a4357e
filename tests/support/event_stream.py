"""A strict client of the event streams: it refuses any form that the contract does not name."""

import json
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import httpx2

from tests.support.service import ApiUser

COMMENT = re.compile(rb":[^\r\n]*")
EVENT = re.compile(rb"id: ([1-9][0-9]*)\nevent: ([a-z_]+\.[a-z]+)\ndata: ([^\r\n]+)")
FINAL_EVENTS = {"turn.completed", "turn.failed", "turn.cancelled", "turn.interrupted"}


@dataclass(frozen=True)
class ServerSentEvent:
    """`raw` is the bytes received, with the blank line at the end."""

    seq: int
    name: str
    data: dict[str, Any]
    raw: bytes

    @classmethod
    def parse(cls, raw: bytes) -> "ServerSentEvent":
        """Raises `AssertionError` unless it is `id`, `event` and `data`, in that order, in lines ended by LF."""
        match = EVENT.fullmatch(raw.removesuffix(b"\n\n"))
        assert match, raw
        seq, name, data = int(match[1]), match[2].decode(), json.loads(match[3])
        assert data["seq"] == seq
        return cls(seq, name, data, raw)

    @property
    def is_final(self) -> bool:
        return self.name in FINAL_EVENTS

    @property
    def payload(self) -> dict[str, Any]:
        """The data without `turn_id` and `seq`."""
        return {name: value for name, value in self.data.items() if name not in {"turn_id", "seq"}}


class EventSource:
    """Reads the events of one response as they arrive."""

    def __init__(self, response: httpx2.Response) -> None:
        self.response = response
        self.comments = 0
        self._chunks = response.aiter_raw()
        self._unread = b""

    async def next(self) -> ServerSentEvent:
        """The next event. Raises `EOFError` if the stream has closed; it may close only between two events."""
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
        """All events up to and including the next one of that name."""
        events = [await self.next()]
        while events[-1].name != name:
            events.append(await self.next())
        return events

    async def rest(self) -> list[ServerSentEvent]:
        """All events until the server closes the stream. Asserts that `seq` has no gaps and only the last is final.

        `turn.undone` may follow it.
        """
        events: list[ServerSentEvent] = []
        try:
            while True:
                events.append(await self.next())
        except EOFError:
            finals = [event.is_final for event in events if event.name != "turn.undone"]
            assert finals == [False] * (len(finals) - 1) + [True] * bool(finals)
            assert [event.seq for event in events] == [events[0].seq + nth for nth in range(len(events))]
            return events

    async def comment(self) -> None:
        """Wait for a comment. Raises `AssertionError` if an event comes first."""
        before = self.comments
        while self.comments == before:
            self._unread += await anext(self._chunks)
            assert self._event() is None

    def _event(self) -> ServerSentEvent | None:
        """The next event that has arrived completely."""
        while b"\n\n" in self._unread:
            block, _, self._unread = self._unread.partition(b"\n\n")
            if not COMMENT.fullmatch(block):
                return ServerSentEvent.parse(block + b"\n\n")
            self.comments += 1
        return None


@asynccontextmanager
async def stream_chat(user: ApiUser, message: str, **body: Any) -> AsyncIterator[EventSource]:
    """Send a message and read the answer as events; leaving the context closes the socket."""
    headers = {"accept": "text/event-stream", **body.pop("headers", {})}
    async with user.stream("POST", "chat", json={"message": message, **body}, headers=headers) as response:
        yield await _opened(response)


@asynccontextmanager
async def stream_turn(user: ApiUser, turn_id: str, **options: Any) -> AsyncIterator[EventSource]:
    """Read the events of a turn; leaving the context closes the socket."""
    async with user.stream("GET", f"turns/{turn_id}/events", **options) as response:
        yield await _opened(response)


async def read_turn(user: ApiUser, turn_id: str, **options: Any) -> list[ServerSentEvent]:
    """All events of a turn up to its end."""
    async with stream_turn(user, turn_id, **options) as source:
        return await source.rest()


def raw_bytes(events: list[ServerSentEvent]) -> bytes:
    return b"".join(event.raw for event in events)


def event_names(events: list[ServerSentEvent]) -> list[str]:
    return [event.name for event in events]


async def _opened(response: httpx2.Response) -> EventSource:
    assert response.status_code == 200, await response.aread()
    assert response.headers["content-type"].partition(";")[0] == "text/event-stream"
    assert response.headers["x-accel-buffering"] == "no"
    assert response.headers["cache-control"] == "no-store"
    return EventSource(response)
