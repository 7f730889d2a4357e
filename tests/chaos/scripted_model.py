"""A fake model for many concurrent turns: its answer depends only on the request.

For `#ada7 adds 2 tasks, asks 3 times and says 9 words` it calls `add_task` with the titles `ada7.0` and `ada7.1`, one
after the other. Then it makes three calls at once of tools that may ask the user, and answers with 9 words. It checks
every request as strictly as a provider: a conversation that a provider would refuse is a fault.
"""

import asyncio
import json
import re
from asyncio import Event, StreamReader, StreamWriter
from collections import Counter, defaultdict
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import Any

from tests.fakes.model_request import ModelRequest
from tests.fakes.model_script import Answer, calls, says
from tests.fakes.responses_events import responses_events

WORD_DELAY_S = 0.03
"""The model waits this long before each word."""

NO_RESULT = "no result recorded"

_MESSAGE = re.compile(r"#(\w+) adds (\d+) tasks, asks (\d+) times and says (\d+) words")
_ASKED = (("request_task", "asked"), ("deliver", "asked"), ("request_task", "free"), ("save_artifact", "asked"))
"""The calls of the step that asks: the tool, and what its title ends with."""

_HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nConnection: close\r\n\r\n"
_DELIVERED = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\n{}"
_IS_DELTA = b"event: response.output_text.delta\n"

Json = dict[str, Any]
Lines = list[tuple[str, ...]]


@dataclass
class Hold:
    """Holds the answer to request number `request` of a turn after `words` words, until it is released."""

    tag: str
    request: int = 1
    words: int = 0
    reached: Event = field(default_factory=Event)
    released: Event = field(default_factory=Event)


@dataclass
class ScriptedModel:
    """The model server.

    `texts` has the text of each answer, by turn and request number. `shown_results` has the result of each tool call
    as later attempts and turns sent it, by call id. `deliveries` counts the requests of the tool `deliver`, by title;
    while `holds_deliveries` is set, they are not answered.
    """

    base_url: str = ""
    holds: list[Hold] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)
    texts: dict[str, dict[int, str]] = field(default_factory=lambda: defaultdict(dict))
    shown_results: dict[str, str] = field(default_factory=dict)
    deliveries: Counter[str] = field(default_factory=Counter)
    holds_deliveries: bool = False

    async def serve(self, reader: StreamReader, writer: StreamWriter) -> None:
        """Answer one request. The replica that sent it may be killed at any moment."""
        with suppress(ConnectionError, asyncio.IncompleteReadError):
            path, body = await _read_request(reader)
            if path.endswith("/deliveries"):
                await self._deliver(body["title"], reader, writer)
                return
            lines = ModelRequest(path, {}, b"", body).conversation
            start = max(index for index, line in enumerate(lines) if line[0] == "user")
            self._check_conversation(lines)
            match = _MESSAGE.fullmatch(lines[start][1])
            if match is None:
                raise ConnectionError  # not a message of these tests
            result_count = sum(line[0] == "result" for line in lines[start:])
            answer = _answer(match[1], int(match[2]), int(match[3]), int(match[4]), result_count)
            self.texts[match[1]][result_count] = "".join(answer.pieces)
            await self._stream(answer, match[1], result_count + 1, reader, writer)
        writer.close()

    async def _deliver(self, title: str, reader: StreamReader, writer: StreamWriter) -> None:
        self.deliveries[title] += 1
        if self.holds_deliveries:
            await reader.read()  # until the replica is killed
        else:
            writer.write(_DELIVERED)
            await writer.drain()
        writer.close()

    async def _stream(self, answer: Answer, tag: str, request: int, reader: StreamReader, writer: StreamWriter) -> None:
        holds = {hold.words: hold for hold in self.holds if (hold.tag, hold.request) == (tag, request)}
        events, end = responses_events(answer)
        words = 0
        await _wait_for_release(holds.get(0), reader)
        writer.write(_HEAD)
        for event in events:
            writer.write(event)
            await writer.drain()
            if event.startswith(_IS_DELTA):
                words += 1
                await asyncio.sleep(WORD_DELAY_S)
                await _wait_for_release(holds.get(words), reader)
        writer.writelines(end)
        await writer.drain()

    def _check_conversation(self, lines: Lines) -> None:
        """Record a fault for a call without a result or a result without a call: a provider refuses those."""
        call_ids = [line[1] for line in lines if line[0] == "call"]
        result_ids = [line[1] for line in lines if line[0] == "result"]
        results = {line[1]: line[2] for line in lines if line[0] == "result"}
        if sorted(call_ids) != sorted(result_ids) or len(set(call_ids)) != len(call_ids):
            self.faults.append(f"calls and results do not match: {lines}")
        self.faults += [f"invalid result of {id}: {text!r}" for id, text in results.items() if not _is_result(text)]
        for id in call_ids:
            if self.shown_results.setdefault(id, results.get(id, "")) != results.get(id, ""):
                self.faults.append(f"result of {id} was {self.shown_results[id]!r} and is now {results.get(id)!r}")

    def full_answer(self, tag: str) -> str:
        """The complete text of a turn. The text after a tool call is a new paragraph."""
        return "\n\n".join(text for _, text in sorted(self.texts[tag].items()) if text)


@asynccontextmanager
async def scripted_model() -> AsyncIterator[ScriptedModel]:
    """Run the model on a free loopback port, in the running event loop."""
    model = ScriptedModel()
    async with await asyncio.start_server(model.serve, "127.0.0.1", 0) as server:
        host, port = server.sockets[0].getsockname()
        model.base_url = f"http://{host}:{port}/v1"
        yield model


def message_text(tag: str, tasks: int, words: int, asks: int = 0) -> str:
    """The message that makes the model add so many tasks, ask so many times, and answer with so many words."""
    return f"#{tag} adds {tasks} tasks, asks {asks} times and says {words} words"


def _answer(tag: str, tasks: int, asks: int, words: int, result_count: int) -> Answer:
    if result_count < tasks:
        title = f"{tag}.{result_count}"
        return calls(("add_task", json.dumps({"title": title})), saying=("Adding ", f"{title}."))
    if result_count < tasks + asks:
        # The calls of this step that a killed process had not made yet are made by the next attempt.
        made = result_count - tasks
        step = [_asked_call(tag, number) for number in range(made, asks)]
        return calls(*step, saying=() if made else ("Asking ", f"{tag}."))
    return says(*(f"word{number} " for number in range(words)))


def _asked_call(tag: str, number: int) -> tuple[str, str]:
    name, ending = _ASKED[number % len(_ASKED)]
    arguments = {"title": f"{tag}.{number}.{ending}"}
    if name == "save_artifact":
        arguments["content_markdown"] = tag
    return name, json.dumps(arguments)


def _is_result(text: str) -> bool:
    return text == NO_RESULT or text.startswith("{")


async def _wait_for_release(hold: Hold | None, reader: StreamReader) -> None:
    """Wait until the hold is released. Raises `ConnectionError` if the replica disconnects first."""
    if hold is None:
        return
    hold.reached.set()
    released, disconnected = asyncio.create_task(hold.released.wait()), asyncio.create_task(reader.read())
    try:
        await asyncio.wait({released, disconnected}, return_when=asyncio.FIRST_COMPLETED)
        if disconnected.done():
            raise ConnectionError
    finally:
        released.cancel()
        disconnected.cancel()
        await asyncio.gather(released, disconnected, return_exceptions=True)


async def _read_request(reader: StreamReader) -> tuple[str, Json]:
    """The path and the body."""
    head = (await reader.readuntil(b"\r\n\r\n")).decode().lower()
    length = re.search(r"^content-length: (\d+)", head, re.MULTILINE)
    raw = await reader.readexactly(int(length[1]) if length else 0)
    return head.split(" ", 2)[1], json.loads(raw)
