"""Clients that offer another protocol are answered in this one."""

import asyncio

import pytest

from tests.integration.http.listening import listening
from tests.integration.http.service import Service
from tests.patience import PATIENCE_S

pytestmark = pytest.mark.asyncio(loop_scope="session")

OFFERS = {
    "h2c": "Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAEAAEAAAAIAAAAB",
    "websocket": "connection: upgrade\r\nupgrade: websocket\r\nsec-websocket-version: 13",
}


@pytest.mark.parametrize("offer", OFFERS.values(), ids=OFFERS)
async def test_a_body_that_comes_with_the_offer_is_not_lost(service: Service, offer: str) -> None:
    """And the connection goes on as it began."""
    ada, body = service.person(), b'{"title": "upgrade: milk"}'
    head = f"POST {ada.path('tasks')} HTTP/1.1\r\nhost: localhost\r\nauthorization: Bearer {ada.token}\r\n{offer}\r\n"
    request = f"{head}content-type: application/json\r\ncontent-length: {len(body)}\r\n\r\n".encode() + body
    async with listening(service) as port, asyncio.timeout(PATIENCE_S):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        statuses = []
        for _ in range(2):
            writer.write(request)
            statuses.append(await reader.readuntil(b"\r\n"))
            await reader.readuntil(b'upgrade: milk"')
            await reader.readuntil(b"}")
        writer.close()

    assert statuses == [b"HTTP/1.1 201 Created\r\n"] * 2
