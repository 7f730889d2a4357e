"""Timeouts and limits for clients that send slowly, send too much, or never finish a request."""

import asyncio
import socket
from asyncio import Event, StreamReader, StreamWriter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
import pytest_asyncio

from latchkey.interfaces.http.server import listen, protocol
from latchkey.interfaces.http.server.listen import ListenAddress
from tests.fakes.model_script import says
from tests.fakes.model_server import ModelServer
from tests.polling import TIMEOUT_S
from tests.support.service import Service
from tests.support.socket_server import serve_on_socket

pytestmark = pytest.mark.asyncio(loop_scope="session")

LIVE = b"GET /health/live HTTP/1.1\r\nhost: localhost\r\n"
RESET = b"(reset)"
WHOLE = LIVE + b"\r\n"


@pytest.fixture
def short_timeouts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(protocol, "HEAD_S", 0.2)
    monkeypatch.setattr(protocol, "MESSAGE_S", 0.4)


@pytest_asyncio.fixture(loop_scope="session")
async def port(service: Service, short_timeouts: None) -> AsyncIterator[int]:
    async with serve_on_socket(service.asgi) as port:
        yield port


@asynccontextmanager
async def connected(port: int) -> AsyncIterator[tuple[StreamReader, StreamWriter]]:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    async with asyncio.timeout(TIMEOUT_S):
        yield reader, writer
    writer.close()


async def exchange(port: int, *parts: bytes, pause_s: float = 0) -> bytes:
    """Send the parts and return all bytes of the server until it closes the connection."""
    async with connected(port) as (reader, writer):
        try:
            for part in parts:
                writer.write(part)
                await writer.drain()
                await asyncio.sleep(pause_s)
            return await reader.read()
        except ConnectionError:
            return RESET


def post(path: str, token: str, *more: str) -> bytes:
    lines = [f"POST {path} HTTP/1.1", "host: localhost", f"authorization: Bearer {token}", *more]
    return "\r\n".join([*lines, "content-type: application/json", "", ""]).encode()


async def test_timeout_of_an_idle_connection_closes_it_without_a_response(port: int) -> None:
    assert await exchange(port) == b""


@pytest.mark.parametrize("head", [b"G", b"GET /health", LIVE, LIVE + b"x-more: "], ids=["byte", "line", "host", "name"])
async def test_timeout_of_an_incomplete_head_is_408(port: int, head: bytes) -> None:
    assert (await exchange(port, head)).startswith(b"HTTP/1.1 408 Request Timeout\r\n")


async def test_timeout_is_not_extended_by_slow_bytes(port: int) -> None:
    trickle = [LIVE, *(b"x" for _ in range(100))]

    answer = await exchange(port, *trickle, pause_s=0.02)

    assert answer == RESET or answer.startswith(b"HTTP/1.1 408 ")


async def test_timeout_applies_to_a_second_request(port: int) -> None:
    answers = await exchange(port, WHOLE + LIVE)

    assert answers.startswith(b"HTTP/1.1 200 OK\r\n")
    assert b"HTTP/1.1 408 Request Timeout\r\n" in answers


@pytest.mark.parametrize("length", ["content-length: 100", "transfer-encoding: chunked"])
async def test_timeout_of_an_incomplete_body_stores_nothing(service: Service, port: int, length: str) -> None:
    """The request is refused and stores nothing."""
    ada = service.user()

    answer = await exchange(port, post(ada.path("tasks"), ada.token, length) + b'{"title"')

    assert b"201" not in answer
    assert await ada.list_items("tasks") == []


async def test_timeout_does_not_affect_a_slow_request_in_time(service: Service) -> None:
    ada, body = service.user(), b'{"title": "Milk"}'
    head = post(ada.path("tasks"), ada.token, f"content-length: {len(body)}")
    async with serve_on_socket(service.asgi) as port, connected(port) as (reader, writer):
        for part in (head[:20], head[20:], body[:5], body[5:]):
            writer.write(part)
            await writer.drain()
            await asyncio.sleep(0.02)
        status = await reader.readline()

    assert status == b"HTTP/1.1 201 Created\r\n"


@pytest.mark.parametrize(
    "head", [LIVE + b"x-long: " + b"x" * 100_000, LIVE + b"x-more: y\r\n" * 20_000], ids=["long", "many"]
)
async def test_headers_over_the_size_limit_are_refused(port: int, head: bytes) -> None:
    parts = [head[start : start + 10_000] for start in range(0, len(head), 10_000)]

    answer = await exchange(port, *parts, pause_s=0.001)

    assert answer == RESET or answer.startswith(b"HTTP/1.1 431 ")


async def test_body_over_the_size_limit_is_refused_and_not_read(service: Service, port: int) -> None:
    ada, chunk = service.user(), b"100000\r\n" + b" " * 0x100000 + b"\r\n"

    answer = await exchange(port, post(ada.path("tasks"), ada.token, "transfer-encoding: chunked"), *[chunk] * 200)

    assert answer == RESET or answer.startswith(b"HTTP/1.1 413 ")


async def test_1000_concurrent_incomplete_requests_delay_no_other_client(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(protocol, "HEAD_S", 3)
    async with serve_on_socket(service.asgi) as port, asyncio.TaskGroup() as attack:
        head = [attack.create_task(exchange(port, LIVE)) for _ in range(1_000)]
        async with connected(port) as (reader, writer):
            writer.write(WHOLE)
            status = await reader.readline()

    assert status == b"HTTP/1.1 200 OK\r\n"
    assert all(task.result() in {b"", RESET} or b" 408 " in task.result() for task in head)


async def test_timeout_of_the_request_does_not_limit_the_response(
    model_service: Service, model: ModelServer, gate: Event, short_timeouts: None
) -> None:
    """The request is complete; only the service takes longer than the timeout."""
    ada, body = model_service.user(), b'{"message": "Hello"}'
    model.script += [says("Hello.").held(gate)]
    async with serve_on_socket(model_service.asgi) as port, connected(port) as (reader, writer):
        writer.write(post(ada.path("chat"), ada.token, f"content-length: {len(body)}", "accept: text/event-stream"))
        await asyncio.sleep(0.05)
        writer.write(body)
        beginning = await reader.readuntil(b"event: turn.started\n")
        await asyncio.sleep(2 * protocol.MESSAGE_S)
        gate.set()
        rest = await reader.readuntil(b"event: turn.completed\n")

    assert beginning.startswith(b"HTTP/1.1 200 OK\r\n")
    assert b"event: message.delta" in rest


@pytest.mark.skipif(not hasattr(socket, "TCP_USER_TIMEOUT"), reason="only Linux has it")
async def test_timeout_of_a_client_that_does_not_read_is_set_on_the_socket() -> None:
    """Connections inherit the option from the listening socket."""
    with listen._bind(ListenAddress("127.0.0.1", 0, 1)) as bound, socket.create_connection(bound.getsockname()):
        accepted, _ = bound.accept()
        with accepted:
            assert accepted.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT) == 60_000


async def test_timeout_is_not_extended_by_empty_lines(port: int) -> None:
    assert await exchange(port, b"\r\n", b"\r\n\r\n", pause_s=0.02) == b""


async def test_timeout_of_a_pipelined_request_does_not_lose_earlier_responses(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The timeout is long enough for the responses on a machine under load."""
    monkeypatch.setattr(protocol, "HEAD_S", 2.0)
    burst = WHOLE * 500 + LIVE
    assert len(burst) > protocol.MAX_HEAD_BYTES / 3

    async with serve_on_socket(service.asgi) as port:
        answers = await exchange(port, burst)

    assert answers.count(b"HTTP/1.1 200 OK") == 500
    assert b"HTTP/1.1 408 " in answers


async def test_memory_limit_for_incomplete_bodies_refuses_only_large_ones(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After the large requests have ended, new ones are accepted."""
    monkeypatch.setattr(protocol, "MAX_UNFINISHED_BYTES", 1_000_000)
    ada, piece = service.user(), b" " * 100_000
    head = post(ada.path("tasks"), ada.token, "content-length: 8000000")
    async with serve_on_socket(service.asgi) as port:
        held = [await asyncio.open_connection("127.0.0.1", port) for _ in range(8)]
        endings = [asyncio.create_task(reader.read()) for reader, _ in held]
        for part in (head, *[piece] * 4):
            for _, writer in held:
                writer.write(part)
            await asyncio.sleep(0.02)
        done, _ = await asyncio.wait(endings, return_when=asyncio.FIRST_COMPLETED, timeout=TIMEOUT_S)

        assert 0 < len(done) < 8
        small = await stream(port, post(ada.path("tasks"), ada.token, "content-length: 16") + b'{"title":"Milk"}')
        assert small == b"HTTP/1.1 201 Created\r\n"
        for _, writer in held:
            writer.close()
        await asyncio.gather(*endings, return_exceptions=True)
    assert protocol.HttpProtocol.unfinished_bytes == 0


async def stream(port: int, request: bytes) -> bytes:
    async with connected(port) as (reader, writer):
        writer.write(request)
        return await reader.readline()


REFUSED = (
    b"POST /api/ada/tasks HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n"
)


async def test_body_after_an_early_response_is_discarded(service: Service) -> None:
    """A client without a token cannot use up the memory for bodies."""
    async with serve_on_socket(service.asgi) as port, connected(port) as (reader, writer):
        writer.write(REFUSED % 8_000_000)
        assert await reader.readline() == b"HTTP/1.1 401 Unauthorized\r\n"
        for _ in range(5):
            writer.write(b" " * 100_000)
            await writer.drain()
            await asyncio.sleep(0.01)
        assert protocol.HttpProtocol.unfinished_bytes == 0
        with pytest.raises(ConnectionError):
            await drained(writer, b" " * 100_000, 200)


async def drained(writer: StreamWriter, part: bytes, times: int) -> None:
    for _ in range(times):
        writer.write(part)
        await writer.drain()
        await asyncio.sleep(0.001)


async def test_timeout_of_a_kept_alive_connection_after_an_early_response(service: Service) -> None:
    """A second request may follow; otherwise the connection is closed as idle."""
    async with serve_on_socket(service.asgi) as port, connected(port) as (reader, writer):
        writer.write(REFUSED % 2)
        assert await reader.readline() == b"HTTP/1.1 401 Unauthorized\r\n"
        writer.write(b"{}")
        await reader.readuntil(b"}")
        writer.write(WHOLE)
        assert await reader.readline() == b"HTTP/1.1 200 OK\r\n"
        writer.write(REFUSED % 2)
        await reader.readuntil(b"401 Unauthorized\r\n")
        writer.write(b"{}")
        await reader.read()


async def test_timeout_of_a_pipelined_request_waits_for_the_running_response(
    model_service: Service, model: ModelServer, gate: Event, short_timeouts: None
) -> None:
    ada, body = model_service.user(), b'{"message": "Hello"}'
    model.script += [says("Hello.").held(gate)]
    request = post(ada.path("chat"), ada.token, f"content-length: {len(body)}", "connection: keep-alive") + body
    async with serve_on_socket(model_service.asgi) as port, connected(port) as (reader, writer):
        writer.write(request + LIVE)
        await asyncio.sleep(2 * protocol.HEAD_S)
        gate.set()
        answer = await reader.read()

    assert answer.startswith(b"HTTP/1.1 200 OK\r\n")
    assert b'"Hello."' in answer
