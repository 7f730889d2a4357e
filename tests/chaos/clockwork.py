"""A fake model for many turns at once: what it answers follows from what it is asked, and it keeps the time.

Asked `#ada7 adds 2 tasks and says 9 words`, it calls `add_task` with the titles `ada7.0` and `ada7.1`, one after the
other, and then says so many words. It looks at every request as a strict provider would: a conversation that has been
bricked is a fault.
"""

import asyncio
import json
import re
from asyncio import Event, StreamReader, StreamWriter
from collections import defaultdict
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field

from tests.fakes.model_request import ModelRequest
from tests.fakes.model_script import Answer, calls, says
from tests.fakes.responses_events import responses_events

PACE_S = 0.03
"""So long it thinks before a word."""

NO_RESULT = "no result recorded"

_ASKED = re.compile(r"#(\w+) adds (\d+) tasks and says (\d+) words")
_HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nConnection: close\r\n\r\n"
_IS_DELTA = b"event: response.output_text.delta\n"

Lines = list[tuple[str, ...]]


@dataclass
class Hold:
    """The clock stands still when a turn makes its `request`th request, after so many words of the answer to it."""

    tag: str
    request: int = 1
    words: int = 0
    reached: Event = field(default_factory=Event)
    released: Event = field(default_factory=Event)


@dataclass
class Clockwork:
    """`said` is what was said in each turn, by request; `shown` what later turns were shown of a call's result."""

    base_url: str = ""
    holds: list[Hold] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)
    said: dict[str, dict[int, str]] = field(default_factory=lambda: defaultdict(dict))
    shown: dict[str, str] = field(default_factory=dict)

    async def serve(self, reader: StreamReader, writer: StreamWriter) -> None:
        """Whoever asks may die at any moment."""
        with suppress(ConnectionError, asyncio.IncompleteReadError):
            lines = await _read(reader)
            start = max(at for at, line in enumerate(lines) if line[0] == "user")
            self._look_at(lines, start)
            asked = _ASKED.fullmatch(lines[start][1])
            if asked is None:
                raise ConnectionError  # nothing that the kit has said
            done = sum(line[0] == "result" for line in lines[start:])
            answer = _answer(asked[1], int(asked[2]), int(asked[3]), done)
            self.said[asked[1]][done] = "".join(answer.pieces)
            await self._say(answer, asked[1], done + 1, reader, writer)
        writer.close()

    async def _say(self, answer: Answer, tag: str, request: int, reader: StreamReader, writer: StreamWriter) -> None:
        holds = {hold.words: hold for hold in self.holds if (hold.tag, hold.request) == (tag, request)}
        said, end = responses_events(answer)
        words = 0
        await _wait_for(holds.get(0), reader)
        writer.write(_HEAD)
        for event in said:
            writer.write(event)
            await writer.drain()
            if event.startswith(_IS_DELTA):
                words += 1
                await asyncio.sleep(PACE_S)
                await _wait_for(holds.get(words), reader)
        writer.writelines(end)
        await writer.drain()

    def _look_at(self, lines: Lines, start: int) -> None:
        """A provider refuses a call without a result, and a result without a call."""
        asked = [line[1] for line in lines if line[0] == "call"]
        results = {line[1]: line[2] for line in lines if line[0] == "result"}
        if sorted(asked) != sorted(line[1] for line in lines if line[0] == "result") or len(set(asked)) != len(asked):
            self.faults.append(f"calls and results do not match: {lines}")
        self.faults += [f"no result of {id}: {text!r}" for id, text in results.items() if not _is_a_result(text)]
        earlier = [line[1] for line in lines[:start] if line[0] == "call"]
        for id in earlier:
            if self.shown.setdefault(id, results.get(id, "")) != results.get(id, ""):
                self.faults.append(f"{id} was {self.shown[id]!r} and is {results.get(id)!r}")

    def answer(self, tag: str) -> str:
        """All that was said in a turn: what is said after a tool call is a new paragraph."""
        return "\n\n".join(text for _, text in sorted(self.said[tag].items()) if text)


@asynccontextmanager
async def clockwork() -> AsyncIterator[Clockwork]:
    """Listens on a free port of the loopback interface, in the running event loop."""
    model = Clockwork()
    async with await asyncio.start_server(model.serve, "127.0.0.1", 0) as server:
        host, port = server.sockets[0].getsockname()
        model.base_url = f"http://{host}:{port}/v1"
        yield model


def asking(tag: str, tasks: int, words: int) -> str:
    """The message that has a turn like that."""
    return f"#{tag} adds {tasks} tasks and says {words} words"


def _answer(tag: str, tasks: int, words: int, done: int) -> Answer:
    if done < tasks:
        return calls(("add_task", json.dumps({"title": f"{tag}.{done}"})), saying=("Adding ", f"{tag}.{done}."))
    return says(*(f"word{nth} " for nth in range(words)))


def _is_a_result(text: str) -> bool:
    return text == NO_RESULT or text.startswith("{")


async def _wait_for(hold: Hold | None, reader: StreamReader) -> None:
    """Until it is released. Raises `ConnectionError` if whoever asks goes first."""
    if hold is None:
        return
    hold.reached.set()
    released, gone = asyncio.create_task(hold.released.wait()), asyncio.create_task(reader.read())
    try:
        await asyncio.wait({released, gone}, return_when=asyncio.FIRST_COMPLETED)
        if gone.done():
            raise ConnectionError
    finally:
        released.cancel()
        gone.cancel()
        await asyncio.gather(released, gone, return_exceptions=True)


async def _read(reader: StreamReader) -> Lines:
    head = (await reader.readuntil(b"\r\n\r\n")).decode().lower()
    length = re.search(r"^content-length: (\d+)", head, re.MULTILINE)
    raw = await reader.readexactly(int(length[1]) if length else 0)
    return ModelRequest("/v1/responses", {}, raw, json.loads(raw)).conversation
