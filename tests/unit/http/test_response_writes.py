"""The writes of a response: one system call and one packet for head and body, and no delay for a stream."""

import asyncio
from typing import Any

import pytest
import uvicorn
from uvicorn.server import ServerState

from latchkey.interfaces.http.server.protocol import HttpProtocol

GET = b"GET / HTTP/1.1\r\nhost: a\r\n\r\n"
HEAD = b"HEAD / HTTP/1.1\r\nhost: a\r\n\r\n"


class RecordingTransport(asyncio.Transport):
    """A connection whose client receives everything at once. Keeps each write."""

    def __init__(self) -> None:
        super().__init__()
        self.written: list[bytes] = []
        self.closed = False

    def write(self, data: Any) -> None:
        self.written.append(bytes(data))

    def writelines(self, list_of_data: Any) -> None:
        self.written.append(b"".join(list_of_data))

    def get_write_buffer_size(self) -> int:
        return 0

    def is_closing(self) -> bool:
        return self.closed

    def close(self) -> None:
        self.closed = True


class Application:
    """Sends the messages of its response; `None` waits for `proceed`."""

    def __init__(self, *messages: dict[str, Any] | None) -> None:
        self._messages = messages
        self.proceed = asyncio.Event()

    async def __call__(self, _scope: Any, _receive: Any, send: Any) -> None:
        for message in self._messages:
            if message is None:
                await self.proceed.wait()
            else:
                await send(message)


def start(status: int = 200, *headers: tuple[bytes, bytes]) -> dict[str, Any]:
    return {"type": "http.response.start", "status": status, "headers": [*headers]}


def body(content: bytes, *, more: bool = False) -> dict[str, Any]:
    return {"type": "http.response.body", "body": content, "more_body": more}


async def respond(application: Any, request: bytes, transport: RecordingTransport | None = None) -> RecordingTransport:
    """Return the connection after the application has sent what it can without waiting."""
    transport = transport or RecordingTransport()
    config = uvicorn.Config(application)
    config.load()
    protocol = HttpProtocol(config, ServerState(), {})
    protocol.connection_made(transport)
    protocol.data_received(request)
    for _ in range(10):
        await asyncio.sleep(0)
    return transport


@pytest.mark.asyncio
async def test_response_head_and_body_are_one_write() -> None:
    length = (b"content-length", b"5")
    transport = await respond(Application(start(200, length), body(b"hello")), GET)

    (write,) = transport.written
    head, _, content = write.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 200 OK\r\n")
    assert content == b"hello"


@pytest.mark.asyncio
@pytest.mark.parametrize(
    ("request_", "messages"),
    [
        (GET, (start(204), body(b""))),
        (GET, (start(200, (b"content-length", b"0")), body(b""))),
        (HEAD, (start(200, (b"content-length", b"5")), body(b"hello"))),
    ],
    ids=["204", "empty", "HEAD"],
)
async def test_response_without_body_is_written_at_its_end(request_: bytes, messages: Any) -> None:
    transport = await respond(Application(*messages), request_)

    (write,) = transport.written
    assert write.endswith(b"\r\n\r\n")


@pytest.mark.asyncio
async def test_response_stream_is_written_as_soon_as_it_waits() -> None:
    application = Application(start(), None, body(b"one", more=True), None, body(b"two"))
    transport = await respond(application, GET)

    (head,) = transport.written
    assert head.endswith(b"transfer-encoding: chunked\r\n\r\n")


@pytest.mark.asyncio
async def test_response_that_closes_its_connection_is_written_before_it() -> None:
    close = (b"connection", b"close")
    transport = await respond(Application(start(200, (b"content-length", b"5"), close), body(b"hello")), GET)

    assert transport.closed
    assert b"".join(transport.written).endswith(b"\r\n\r\nhello")


@pytest.mark.asyncio
async def test_response_of_many_parts_holds_one_at_most() -> None:
    """The event loop does not run in between, but the connection must know when its client does not read."""
    transport, held = RecordingTransport(), []

    async def application(_scope: Any, _receive: Any, send: Any) -> None:
        await send(start())
        for number in range(1, 11):
            await send(body(b"x" * 1000, more=True))
            held.append(number - sum(write.count(b"x" * 1000) for write in transport.written))
        await send(body(b""))

    await respond(application, GET, transport)

    assert max(held) == 1
    assert transport.written[-1].endswith(b"0\r\n\r\n")
