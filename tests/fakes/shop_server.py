"""A shop as another HTTP service, whose responses a test can hold back."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from tests.support.socket_server import serve_on_socket


@dataclass
class ShopServer:
    """Accepts orders at `POST /orders` and answers `GET /stock/SKU`.

    While `is_open` is not set, orders wait. `left` counts the clients that closed the connection of a waiting order.
    """

    url: str = ""
    status: int = 200
    is_open: asyncio.Event = field(default_factory=asyncio.Event)
    received: asyncio.Event = field(default_factory=asyncio.Event)
    client_left: asyncio.Event = field(default_factory=asyncio.Event)
    keys: list[str] = field(default_factory=list)

    @property
    def orders(self) -> int:
        """How many orders have been received."""
        return len(self.keys)

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        await receive()
        if scope["path"] == "/orders":
            self.keys.append(dict(scope["headers"])[b"idempotency-key"].decode())
            self.received.set()
            if not await self._is_released(receive):
                self.client_left.set()
                return
        body = {"number": f"N{self.orders}", "count": 7}
        headers = [(b"content-type", b"application/json")]
        await send({"type": "http.response.start", "status": self.status, "headers": headers})
        await send({"type": "http.response.body", "body": json.dumps(body).encode()})

    async def _is_released(self, receive: Any) -> bool:
        """Wait until orders are answered; return False if the client leaves before that."""
        opening = asyncio.create_task(self.is_open.wait())
        leaving = asyncio.create_task(receive())
        await asyncio.wait([opening, leaving], return_when=asyncio.FIRST_COMPLETED)
        leaving.cancel()
        opening.cancel()
        return self.is_open.is_set()


@asynccontextmanager
async def shop_server() -> AsyncIterator[ShopServer]:
    shop = ShopServer()
    async with serve_on_socket(shop) as port:
        shop.url = f"http://127.0.0.1:{port}"
        yield shop
        shop.is_open.set()
