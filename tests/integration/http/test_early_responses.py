"""A response that is sent before its request is complete reaches the client: the server reads on before it closes."""

import asyncio
from asyncio import StreamReader, StreamWriter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
import pytest_asyncio
from litestar.types import Receive, Scope, Send

from latchkey.interfaces.http.server import protocol
from tests.polling import TIMEOUT_S
from tests.support.service import Service
from tests.support.socket_server import serve_on_socket

pytestmark = pytest.mark.asyncio(loop_scope="session")

TOO_LARGE = 9_000_000
LIVE = b"GET /health/live HTTP/1.1\r\nhost: localhost\r\n"


@pytest_asyncio.fixture(loop_scope="session")
async def port(service: Service) -> AsyncIterator[int]:
    async with serve_on_socket(service.asgi) as port:
        yield port


@asynccontextmanager
async def connected(port: int) -> AsyncIterator[tuple[StreamReader, StreamWriter]]:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    async with asyncio.timeout(TIMEOUT_S):
        yield reader, writer
    writer.close()


def too_large_request(service: Service, connection: str) -> bytes:
    ada = service.user()
    lines = [
        f"POST {ada.path('tasks')} HTTP/1.1",
        "host: localhost",
        f"authorization: Bearer {ada.token}",
        "content-type: application/json",
        f"content-length: {TOO_LARGE}",
        f"connection: {connection}",
    ]
    return "\r\n".join([*lines, "", ""]).encode() + b" " * TOO_LARGE


async def send(writer: StreamWriter, part: bytes, *, times: int, pause_s: float = 0) -> None:
    for _ in range(times):
        writer.write(part)
        await writer.drain()
        await asyncio.sleep(pause_s)


async def test_response_413_reaches_client_that_sends_everything_first_and_closes(service: Service, port: int) -> None:
    """As Python's `urllib` does."""
    async with connected(port) as (reader, writer):
        writer.write(too_large_request(service, "close"))
        await writer.drain()
        response = await reader.read()

    assert response.startswith(b"HTTP/1.1 413 ")
    assert b"connection: close\r\n" in response
    assert b'"code":"too-large"' in response


async def test_response_413_reaches_client_that_keeps_the_connection(service: Service, port: int) -> None:
    async with connected(port) as (reader, writer):
        writer.write(too_large_request(service, "keep-alive"))
        await writer.drain()
        status = await reader.readline()
        await reader.readuntil(b"}")
        writer.write(LIVE + b"\r\n")
        following = await reader.readline()

    assert status.startswith(b"HTTP/1.1 413 ")
    assert following.startswith(b"HTTP/1.1 200 ")


async def test_response_431_reaches_client_that_goes_on_sending_headers(port: int) -> None:
    async with connected(port) as (reader, writer):
        writer.write(LIVE + b"x-more: y\r\n" * 100_000)
        await writer.drain()
        response = await reader.read()

    assert response.startswith(b"HTTP/1.1 431 ")


async def test_lingering_close_discards_only_so_many_bytes(service: Service, port: int) -> None:
    async with connected(port) as (reader, writer):
        writer.write(too_large_request(service, "close"))
        response = await reader.read()
        with pytest.raises(ConnectionError):
            await send(writer, b" " * 100_000, times=2 * protocol.MAX_MESSAGE_BYTES // 100_000)

    assert response.startswith(b"HTTP/1.1 413 ")


async def test_lingering_close_ends_after_a_timeout(
    service: Service, port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(protocol, "LINGER_S", 0.1)
    async with connected(port) as (reader, writer):
        head, _, _ = too_large_request(service, "close").partition(b" " * TOO_LARGE)
        writer.write(head)
        response = await reader.read()
        with pytest.raises(ConnectionError):
            await send(writer, b" ", times=1_000, pause_s=0.01)

    assert response.startswith(b"HTTP/1.1 413 ")


class ClosingApp:
    """Answers its requests after `gate`, and closes their connection, as during a drain."""

    def __init__(self) -> None:
        self.called, self.gate = asyncio.Event(), asyncio.Event()
        self.errors: list[RuntimeError] = []

    async def __call__(self, _: Scope, __: Receive, send: Send) -> None:
        self.called.set()
        await self.gate.wait()
        try:
            await send({"type": "http.response.start", "status": 204, "headers": [(b"connection", b"close")]})
            await send({"type": "http.response.body", "body": b"", "more_body": False})
        except RuntimeError as error:
            self.errors.append(error)


async def test_last_response_reaches_client_that_has_pipelined_more_requests() -> None:
    app, request = ClosingApp(), LIVE + b"\r\n"
    async with serve_on_socket(app) as port, connected(port) as (reader, writer):
        writer.write(2 * request)
        await app.called.wait()
        writer.write(1_000 * request)
        app.gate.set()
        response = await reader.read()

    assert response.startswith(b"HTTP/1.1 204 ")
    assert response.count(b"HTTP/1.1 ") == 1


async def test_timeout_of_a_pipelined_request_behind_the_last_response_is_no_error(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The end of the stream has been sent with the last response, so no 408 can follow it."""
    monkeypatch.setattr(protocol, "HEAD_S", 0.1)
    app = ClosingApp()
    async with serve_on_socket(app) as port, connected(port) as (reader, writer):
        writer.write(LIVE + b"\r\n" + LIVE)
        await asyncio.sleep(4 * protocol.HEAD_S)
        app.gate.set()
        response = await reader.read()

    assert app.errors == []
    assert response.startswith(b"HTTP/1.1 204 ")
    assert response.count(b"HTTP/1.1 ") == 1
