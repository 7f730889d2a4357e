"""One message, sent again and again under one `Idempotency-Key`."""

import httpx2

from tests.integration.http.event_source import chatting, joined, names_of
from tests.integration.http.service import Person

BODY = b'{"message": "Buy milk"}'
KEY = {"idempotency-key": "k"}


async def send(person: Person, body: bytes = BODY, headers: dict[str, str] | None = None) -> httpx2.Response:
    """The message, under the key `k` unless the headers say otherwise."""
    given = {"content-type": "application/json", **KEY, **(headers or {})}
    return await person.post("chat", content=body, headers=given)


async def stream(person: Person) -> tuple[str | None, bytes]:
    """The same message answered as events: whether they are said to be replayed, and what they are."""
    async with chatting(person, "Buy milk", headers=KEY) as source:
        events = await source.rest()
    assert names_of(events)[-1] == "turn.completed"
    return source.response.headers.get("idempotency-replayed"), joined(events)
