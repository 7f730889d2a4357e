"""Clients that ask and do not read: a process holds a bounded number of bytes for them, and serves others."""

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager

import pytest
import pytest_asyncio

from latchkey.interfaces.http.server import protocol, response_budget
from latchkey.interfaces.http.server.response_budget import RESPONSES
from tests.polling import TIMEOUT_S, wait_until
from tests.support.service import ApiUser, Service
from tests.support.socket_server import serve_on_socket

pytestmark = pytest.mark.asyncio(loop_scope="session")

MIB = 1024 * 1024
PIPELINED = 12


@pytest_asyncio.fixture(loop_scope="session")
async def port(service: Service) -> AsyncIterator[int]:
    async with serve_on_socket(service.asgi) as port:
        yield port


@pytest.fixture(autouse=True)
def _small_budget(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(RESPONSES, "limit", 8 * MIB)
    monkeypatch.setattr(response_budget, "WAIT_S", 0.2)


def request(user: ApiUser, path: str) -> bytes:
    lines = [f"GET {user.path(path)} HTTP/1.1", "host: localhost", f"authorization: Bearer {user.token}"]
    return "\r\n".join([*lines, "", ""]).encode()


@asynccontextmanager
async def slow_client(port: int, user: ApiUser, path: str) -> AsyncIterator[socket.socket]:
    """A client that sends requests in one piece and reads no response."""
    client = socket.socket()
    client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    client.setblocking(False)  # noqa: FBT003 # the name of the parameter is not public
    loop = asyncio.get_running_loop()
    await loop.sock_connect(client, ("127.0.0.1", port))
    await loop.sock_sendall(client, request(user, path) * PIPELINED)
    try:
        yield client
    finally:
        client.close()


async def get(port: int, user: ApiUser, path: str) -> tuple[int, bytes]:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    async with asyncio.timeout(TIMEOUT_S):
        writer.write(request(user, path).replace(b"HTTP/1.1\r\n", b"HTTP/1.1\r\nconnection: close\r\n"))
        response = await reader.read()
    writer.close()
    return int(response.split(b" ", 2)[1]), response


async def large_artifact(user: ApiUser) -> str:
    created = await user.post("artifacts", json={"title": "Large", "content_markdown": "x" * (MIB - 1)})
    return f"artifacts/{created.json()['id']}"


async def test_slow_clients_of_one_user_are_refused_and_others_served(service: Service, port: int) -> None:
    ada, bob = service.user(), service.user()
    hers, his = await large_artifact(ada), await large_artifact(bob)

    async def is_refused() -> bool:
        status, response = await get(port, ada, hers)
        assert status in {200, 503}
        return status == 503 and b"retry-after: 2" in response.lower() and b'"unavailable"' in response

    async with AsyncExitStack() as clients:
        for _ in range(10):
            await clients.enter_async_context(slow_client(port, ada, hers))
        await wait_until(is_refused)
        assert (await get(port, bob, his))[0] == 200
        assert (await get(port, ada, "tasks"))[0] == 200, "small responses are not counted"

    async def is_served() -> bool:
        return (await get(port, ada, hers))[0] == 200

    await wait_until(is_served)


async def test_client_that_receives_nothing_is_disconnected(
    service: Service, port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(protocol, "STALL_S", 0.1)
    ada = service.user()
    path = await large_artifact(ada)

    async def is_served() -> bool:
        return (await get(port, ada, path))[0] == 200

    async with AsyncExitStack() as clients:
        for _ in range(10):
            await clients.enter_async_context(slow_client(port, ada, path))
        await wait_until(is_served)
