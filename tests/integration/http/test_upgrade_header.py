"""The `Upgrade` header is ignored: the response is HTTP/1.1."""

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
async def test_upgrade_header_with_a_body_is_answered_normally(service: Service, offer: str) -> None:
    """The connection stays HTTP/1.1."""
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
async def test_upgrade_header_after_the_first_request_starts_no_smuggled_request(
    service: Service, offer: str, cut: int
) -> None:
    """A proxy could take the bytes for a body, while the server would read them as another user's request."""
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
