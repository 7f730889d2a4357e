"""A scripted server with the streaming APIs of OpenAI and Anthropic, on a real socket. It records its requests.

async with model_server() as model:
    model.script += [calls(("add_task", '{"title": "Milk"}')), says("Done", ".")]
    ... a client with base_url=model.base_url ...
    assert model.requests[0].tools == [...]
"""

import asyncio
import json
from asyncio import StreamReader, StreamWriter
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from http import HTTPStatus

from tests.fakes.anthropic_events import anthropic_events, anthropic_message
from tests.fakes.chat_completions_events import chat_events
from tests.fakes.model_request import ModelRequest
from tests.fakes.model_script import Answer, Reply, Step, fails
from tests.fakes.responses_events import responses_events
from tests.polling import wait_until

ENCODERS = {"/v1/responses": responses_events, "/v1/chat/completions": chat_events, "/v1/messages": anthropic_events}


@dataclass
class ModelServer:
    """Takes one step of `script` for each request. A request after the last step gets a 500 that is not retried."""

    base_url: str = ""
    script: deque[Step] = field(default_factory=deque)
    requests: list[ModelRequest] = field(default_factory=list)

    async def serve(self, reader: StreamReader, writer: StreamWriter) -> None:
        with suppress(ConnectionError, asyncio.IncompleteReadError):
            request = await _read(reader)
            self.requests.append(request)
            if request.path not in ENCODERS:
                step: Step = fails(404, "no such path")
            else:
                step = (
                    self.script.popleft() if self.script else fails(500, "the script is over", x_should_retry="false")
                )
            if isinstance(step, Answer) and request.path == "/v1/messages" and not request.body.get("stream"):
                step = Reply(body=anthropic_message(step))
            if isinstance(step, Reply):
                _start(writer, step, None if step.stays_open else len(step.body) + step.breaks)
                writer.write(step.body)
                if step.stays_open:
                    await writer.drain()
                    await reader.read()
            else:
                await _stream(step, request, reader, writer)
            await writer.drain()
        writer.close()

    async def wait_for_requests(self, count: int = 1) -> None:
        """Wait until at least so many requests have arrived."""
        await wait_until(lambda: self._has_requests(count))

    async def _has_requests(self, count: int) -> bool:
        return len(self.requests) >= count


@asynccontextmanager
async def model_server() -> AsyncIterator[ModelServer]:
    """Listens on a free port of the loopback interface, in the running event loop."""
    model = ModelServer()
    async with await asyncio.start_server(model.serve, "127.0.0.1", 0) as server:
        host, port = server.sockets[0].getsockname()
        model.base_url = f"http://{host}:{port}/v1"
        yield model


async def _read(reader: StreamReader) -> ModelRequest:
    head = await reader.readuntil(b"\r\n\r\n")
    first, *lines = head.decode().splitlines()
    headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines) if name}
    raw = await reader.readexactly(int(headers.get("content-length", 0)))
    return ModelRequest(first.split()[1].partition("?")[0], headers, raw, json.loads(raw) if raw else {})


async def _stream(answer: Answer, request: ModelRequest, reader: StreamReader, writer: StreamWriter) -> None:
    content, end = ENCODERS[request.path](answer)
    declared_length = 10_000_000 if answer.ending == "broken" else None
    _start(writer, Reply(media_type="text/event-stream; charset=utf-8"), declared_length)
    for event in content:
        if answer.pace:
            await answer.pace.acquire()
        writer.write(event)
        await writer.drain()
    if answer.held_until and not await _released(answer.held_until, reader):
        request.client_disconnected.set()
    elif answer.ending == "whole":
        writer.writelines(end)


async def _released(held_until: asyncio.Event, reader: StreamReader) -> bool:
    """Wait for the event. Returns False if the client has disconnected first."""
    release, eof = asyncio.create_task(held_until.wait()), asyncio.create_task(reader.read())
    try:
        await asyncio.wait({release, eof}, return_when=asyncio.FIRST_COMPLETED)
        return not eof.done()
    finally:
        release.cancel()
        eof.cancel()
        await asyncio.gather(release, eof, return_exceptions=True)


def _start(writer: StreamWriter, reply: Reply, length: int | None) -> None:
    headers = {"Connection": "close", **reply.headers}
    if reply.media_type is not None:
        headers["Content-Type"] = reply.media_type
    if length is not None:
        headers["Content-Length"] = str(length)
    lines = [f"HTTP/1.1 {reply.status} {HTTPStatus(reply.status).phrase}", *(f"{k}: {v}" for k, v in headers.items())]
    writer.write(("\r\n".join(lines) + "\r\n\r\n").encode())
