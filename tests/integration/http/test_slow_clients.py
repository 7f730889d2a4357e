"""Clients that begin a request and do not end it hold a connection for a while, and nobody else's."""

import asyncio
import socket
from asyncio import Event, StreamReader, StreamWriter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
import pytest_asyncio

from latchkey.interfaces.http.server import listen as server
from latchkey.interfaces.http.server import protocol as connection
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
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection, "HEAD_S", 0.2)
    monkeypatch.setattr(connection, "MESSAGE_S", 0.4)


@pytest_asyncio.fixture(loop_scope="session")
async def port(service: Service, impatient: None) -> AsyncIterator[int]:
    async with serve_on_socket(service.asgi) as port:
        yield port


@asynccontextmanager
async def connected(port: int) -> AsyncIterator[tuple[StreamReader, StreamWriter]]:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    async with asyncio.timeout(TIMEOUT_S):
        yield reader, writer
    writer.close()


async def told(port: int, *parts: bytes, pause_s: float = 0) -> bytes:
    """All that is answered to these bytes until the server closes the connection, without any more of them."""
    async with connected(port) as (reader, writer):
        try:
            for part in parts:
                writer.write(part)
                await writer.drain()
                await asyncio.sleep(pause_s)
            return await reader.read()
        except ConnectionError:
            return RESET


def post(person_path: str, token: str, *more: str) -> bytes:
    lines = [f"POST {person_path} HTTP/1.1", "host: localhost", f"authorization: Bearer {token}", *more]
    return "\r\n".join([*lines, "content-type: application/json", "", ""]).encode()


async def test_who_says_nothing_is_told_nothing(port: int) -> None:
    assert await told(port) == b""


@pytest.mark.parametrize(
    "begun", [b"G", b"GET /health", LIVE, LIVE + b"x-more: "], ids=["byte", "line", "host", "name"]
)
async def test_a_request_that_is_never_ended_is_timed_out(port: int, begun: bytes) -> None:
    assert (await told(port, begun)).startswith(b"HTTP/1.1 408 Request Timeout\r\n")


async def test_one_that_comes_byte_by_byte_gains_no_time(port: int) -> None:
    trickle = [LIVE, *(b"x" for _ in range(100))]

    answer = await told(port, *trickle, pause_s=0.02)

    assert answer == RESET or answer.startswith(b"HTTP/1.1 408 ")


async def test_a_second_request_has_to_end_like_the_first(port: int) -> None:
    answers = await told(port, WHOLE + LIVE)

    assert answers.startswith(b"HTTP/1.1 200 OK\r\n")
    assert b"HTTP/1.1 408 Request Timeout\r\n" in answers


@pytest.mark.parametrize("length", ["content-length: 100", "transfer-encoding: chunked"])
async def test_a_body_that_never_comes_is_waited_for_only_so_long(service: Service, port: int, length: str) -> None:
    """And nothing is stored of it."""
    ada = service.user()

    answer = await told(port, post(ada.path("tasks"), ada.token, length) + b'{"title"')

    assert b"201" not in answer
    assert await ada.list_items("tasks") == []


async def test_a_slow_request_that_ends_in_time_is_answered(service: Service) -> None:
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
async def test_headers_without_end_are_refused(port: int, head: bytes) -> None:
    parts = [head[start : start + 10_000] for start in range(0, len(head), 10_000)]

    answer = await told(port, *parts, pause_s=0.001)

    assert answer == RESET or answer.startswith(b"HTTP/1.1 431 ")


async def test_a_body_without_end_is_refused_and_not_read_for_ever(service: Service, port: int) -> None:
    ada, chunk = service.user(), b"100000\r\n" + b" " * 0x100000 + b"\r\n"

    answer = await told(port, post(ada.path("tasks"), ada.token, "transfer-encoding: chunked"), *[chunk] * 200)

    assert answer == RESET or answer.startswith(b"HTTP/1.1 413 ")


async def test_a_thousand_requests_that_are_never_ended_keep_nobody_waiting(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connection, "HEAD_S", 3)
    async with serve_on_socket(service.asgi) as port, asyncio.TaskGroup() as attack:
        begun = [attack.create_task(told(port, LIVE)) for _ in range(1_000)]
        async with connected(port) as (reader, writer):
            writer.write(WHOLE)
            status = await reader.readline()

    assert status == b"HTTP/1.1 200 OK\r\n"
    assert all(task.result() in {b"", RESET} or b" 408 " in task.result() for task in begun)


async def test_an_answer_may_take_as_long_as_it_takes(
    thinking: Service, model: ModelServer, held: Event, impatient: None
) -> None:
    """The client has said all it had to say: once the time for that is long over, only the service is slow."""
    ada, body = thinking.user(), b'{"message": "Hello"}'
    model.script += [says("Hello.").held(held)]
    async with serve_on_socket(thinking.asgi) as port, connected(port) as (reader, writer):
        writer.write(post(ada.path("chat"), ada.token, f"content-length: {len(body)}", "accept: text/event-stream"))
        await asyncio.sleep(0.05)
        writer.write(body)
        beginning = await reader.readuntil(b"event: turn.started\n")
        await asyncio.sleep(2 * connection.MESSAGE_S)
        held.set()
        rest = await reader.readuntil(b"event: turn.completed\n")

    assert beginning.startswith(b"HTTP/1.1 200 OK\r\n")
    assert b"event: message.delta" in rest


@pytest.mark.skipif(not hasattr(socket, "TCP_USER_TIMEOUT"), reason="only Linux has it")
async def test_who_takes_nothing_of_an_answer_is_given_up_by_the_system() -> None:
    """What the listener is told, every connection does."""
    with server._bound(ListenAddress("127.0.0.1", 0, 1)) as bound, socket.create_connection(bound.getsockname()):
        accepted, _ = bound.accept()
        with accepted:
            assert accepted.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT) == 60_000


async def test_empty_lines_gain_no_time(port: int) -> None:
    assert await told(port, b"\r\n", b"\r\n\r\n", pause_s=0.02) == b""


async def test_a_burst_of_requests_is_answered_before_what_follows_is_timed_out(port: int) -> None:
    burst = WHOLE * 500 + LIVE
    assert len(burst) > connection.MAX_HEAD_BYTES / 3

    answers = await told(port, burst)

    assert answers.count(b"HTTP/1.1 200 OK") == 500
    assert b"HTTP/1.1 408 " in answers


async def test_beyond_what_a_process_can_hold_large_bodies_are_refused_and_small_ones_go_on(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And once the large ones are gone, others are let in again."""
    monkeypatch.setattr(connection, "MAX_UNFINISHED_BYTES", 1_000_000)
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
    assert connection.Connection._unfinished == 0


async def stream(port: int, request: bytes) -> bytes:
    async with connected(port) as (reader, writer):
        writer.write(request)
        return await reader.readline()


REFUSED = (
    b"POST /api/ada/tasks HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n"
)


async def test_what_is_sent_after_an_answer_is_not_kept_and_soon_not_read(service: Service) -> None:
    """Whoever has no token cannot use up what others' bodies may come to."""
    async with serve_on_socket(service.asgi) as port, connected(port) as (reader, writer):
        writer.write(REFUSED % 8_000_000)
        assert await reader.readline() == b"HTTP/1.1 401 Unauthorized\r\n"
        for _ in range(5):
            writer.write(b" " * 100_000)
            await writer.drain()
            await asyncio.sleep(0.01)
        assert connection.Connection._unfinished == 0
        with pytest.raises(ConnectionError):
            await drained(writer, b" " * 100_000, 200)


async def drained(writer: StreamWriter, part: bytes, times: int) -> None:
    for _ in range(times):
        writer.write(part)
        await writer.drain()
        await asyncio.sleep(0.001)


async def test_a_request_that_ends_after_its_answer_keeps_no_connection_for_ever(service: Service) -> None:
    """Another may follow it; if none does, the connection is closed like any that is idle."""
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


async def test_a_request_that_is_never_ended_does_not_cost_the_one_before_its_answer(
    thinking: Service, model: ModelServer, held: Event, impatient: None
) -> None:
    ada, body = thinking.user(), b'{"message": "Hello"}'
    model.script += [says("Hello.").held(held)]
    request = post(ada.path("chat"), ada.token, f"content-length: {len(body)}", "connection: keep-alive") + body
    async with serve_on_socket(thinking.asgi) as port, connected(port) as (reader, writer):
        writer.write(request + LIVE)
        await asyncio.sleep(2 * connection.HEAD_S)
        held.set()
        answer = await reader.read()

    assert answer.startswith(b"HTTP/1.1 200 OK\r\n")
    assert b'"Hello."' in answer
