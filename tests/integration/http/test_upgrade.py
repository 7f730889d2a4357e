"""Clients that offer another protocol are answered in this one."""

import asyncio

import pytest

from tests.polling import TIMEOUT_S
from tests.support.service import Service
from tests.support.socket_server import serve_on_socket

pytestmark = pytest.mark.asyncio(loop_scope="session")

OFFERS = {
    "h2c": "Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAEAAEAAAAIAAAAB",
    "websocket": "connection: upgrade\r\nupgrade: websocket\r\nsec-websocket-version: 13",
}


@pytest.mark.parametrize("offer", OFFERS.values(), ids=OFFERS)
async def test_a_body_that_comes_with_the_offer_is_not_lost(service: Service, offer: str) -> None:
    """And the connection goes on as it began."""
    ada, body = service.user(), b'{"title": "upgrade: milk"}'
    head = f"POST {ada.path('tasks')} HTTP/1.1\r\nhost: localhost\r\nauthorization: Bearer {ada.token}\r\n{offer}\r\n"
    request = f"{head}content-type: application/json\r\ncontent-length: {len(body)}\r\n\r\n".encode() + body
    async with serve_on_socket(service.asgi) as port, asyncio.timeout(TIMEOUT_S):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        statuses = []
        for _ in range(2):
            writer.write(request)
            statuses.append(await reader.readuntil(b"\r\n"))
            await reader.readuntil(b'upgrade: milk"')
            await reader.readuntil(b"}")
        writer.close()

    assert statuses == [b"HTTP/1.1 201 Created\r\n"] * 2


@pytest.mark.parametrize("offer", OFFERS.values(), ids=OFFERS)
@pytest.mark.parametrize("cut", [30, 200], ids=["before the offer", "after it"])
async def test_what_follows_an_offer_that_came_late_is_never_another_request(
    service: Service, offer: str, cut: int
) -> None:
    """A proxy takes it for a body; here it would be a request of whoever comes next on the connection."""
    ada = service.user()
    task = await ada.create("tasks", title="Milk")
    smuggled = f"DELETE {ada.path('tasks')}/{task['id']} HTTP/1.1\r\nhost: localhost\r\n"
    smuggled += f"authorization: Bearer {ada.token}\r\n\r\n"
    head = f"POST {ada.path('tasks')} HTTP/1.1\r\nhost: localhost\r\nauthorization: Bearer {ada.token}\r\n{offer}\r\n"
    request = f"{head}content-type: application/json\r\ncontent-length: {len(smuggled)}\r\n\r\n".encode()
    async with serve_on_socket(service.asgi) as port, asyncio.timeout(TIMEOUT_S):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        for part in (request[:cut], request[cut:], smuggled.encode()):
            writer.write(part)
            await writer.drain()
            await asyncio.sleep(0.05)
        try:
            answers = await reader.read()
        except ConnectionError:
            answers = b""
        writer.close()

    assert answers.count(b"HTTP/1.1") <= 1
    assert b" 204 " not in answers
    assert (await ada.get(f"tasks/{task['id']}")).status_code == 200
