"""Sends one chat message repeatedly with the same `Idempotency-Key`."""

import httpx2

from tests.support.event_stream import event_names, raw_bytes, stream_chat
from tests.support.service import ApiUser

BODY = b'{"message": "Buy milk"}'
KEY = {"idempotency-key": "k"}


async def send(user: ApiUser, body: bytes = BODY, headers: dict[str, str] | None = None) -> httpx2.Response:
    """Send the message with the key `k`, unless `headers` name another."""
    given = {"content-type": "application/json", **KEY, **(headers or {})}
    return await user.post("chat", content=body, headers=given)


async def stream(user: ApiUser) -> tuple[str | None, bytes]:
    """Send it and read the answer as events: the `Idempotency-Replayed` header, and the bytes of the events."""
    async with stream_chat(user, "Buy milk", headers=KEY) as source:
        events = await source.rest()
    assert event_names(events)[-1] == "turn.completed"
    return source.response.headers.get("idempotency-replayed"), raw_bytes(events)
