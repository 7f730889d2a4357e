"""One message, sent again and again under one `Idempotency-Key`."""

import httpx2

from tests.support.event_stream import event_names, raw_bytes, stream_chat
from tests.support.service import ApiUser

BODY = b'{"message": "Buy milk"}'
KEY = {"idempotency-key": "k"}


async def send(person: ApiUser, body: bytes = BODY, headers: dict[str, str] | None = None) -> httpx2.Response:
    """The message, under the key `k` unless the headers say otherwise."""
    given = {"content-type": "application/json", **KEY, **(headers or {})}
    return await person.post("chat", content=body, headers=given)


async def stream(person: ApiUser) -> tuple[str | None, bytes]:
    """The same message answered as events: whether they are said to be read_turn, and what they are."""
    async with stream_chat(person, "Buy milk", headers=KEY) as source:
        events = await source.rest()
    assert event_names(events)[-1] == "turn.completed"
    return source.response.headers.get("idempotency-replayed"), raw_bytes(events)
