"""What a POST is answered: a status, and JSON or nothing."""

from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

from msgspec import Struct

Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
Header = tuple[bytes, bytes]

_JSON = (b"content-type", b"application/json")


class HttpResponse(Struct, frozen=True):
    """An HTTP response, before it is on its way."""

    status: int
    body: bytes = b""
    headers: tuple[Header, ...] = ()

    async def send(self, send: Send) -> None:
        length = (b"content-length", b"%d" % len(self.body))
        headers = [*((_JSON,) if self.body else ()), length, *self.headers]
        await send({"type": "http.response.start", "status": self.status, "headers": headers})
        await send({"type": "http.response.body", "body": self.body})
