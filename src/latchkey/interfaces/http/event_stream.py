"""Events of a turn as server-sent events (HTML standard, 9.2), with LF line ends."""

import re
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterator
from contextlib import nullcontext
from inspect import getdoc

import msgspec
from litestar.response import Stream
from msgspec import Struct

from latchkey.domain.turn import TurnId
from latchkey.domain.turn_event import EVENT_NAMES, EventName, TurnEvent
from latchkey.interfaces.http.server.response_budget import LARGE_BYTES, RESPONSES

MEDIA_TYPE = "text/event-stream"

_HEADERS = {"X-Accel-Buffering": "no"}
"""Turns off buffering in nginx, so that it forwards each event at once."""
_COMMENT = b":\n\n"
_CHUNK_BYTES = 32 * 1024
"""The most that one send adds to the buffer of a connection whose client does not read."""


def published_data() -> Iterator[tuple[EventName, type[Struct]]]:
    """Yield each event with the type of its JSON data as clients receive it: with the turn and the number."""
    for data, name in EVENT_NAMES.items():
        fields = [(field.name, field.type) for field in msgspec.structs.fields(data)]
        title = "".join(part.capitalize() for part in re.split(r"[._]", name)) + "Event"
        documentation = {"__doc__": getdoc(data)}
        yield name, msgspec.defstruct(title, [("turn_id", TurnId), ("seq", int), *fields], namespace=documentation)


def encode_event(event: TurnEvent) -> bytes:
    """Return the event as a server-sent event with its number, its name and its data."""
    return b"id: %d\nevent: %s\ndata: %s\n\n" % (event.seq, event.name.encode(), event.data)


def event_stream(
    batches: AsyncGenerator[list[TurnEvent], None],
    user_id: str,
    headers: dict[str, str] | None = None,
    encode: Callable[[TurnEvent], bytes] = encode_event,
    end: Callable[[], bytes] = bytes,
) -> Stream:
    """Return a response that streams the events. An empty batch becomes a comment, which keeps the connection open.

    A stream whose last event this process cannot send breaks, and its client resumes it: `batches` or `encode` raises
    a failure, or `RESPONSES` has no capacity for the events.

    `encode` returns the server-sent events for an event of the turn: none, one or several. `end` returns those that
    follow the last one: a stream also ends where the turn waits for the user.
    """
    return Stream(
        _encode(batches, user_id, encode, end),
        media_type=MEDIA_TYPE,
        headers={**_HEADERS, **(headers or {})},
        status_code=200,
    )


async def _encode(
    batches: AsyncGenerator[list[TurnEvent], None],
    user_id: str,
    encode: Callable[[TurnEvent], bytes],
    end: Callable[[], bytes],
) -> AsyncIterator[bytes]:
    async for batch in batches:
        lines = b"".join(map(encode, batch)) or _COMMENT
        is_large = len(lines) >= 2 * LARGE_BYTES
        async with RESPONSES.reserve(user_id, len(lines)) if is_large else nullcontext():
            for start in range(0, len(lines), _CHUNK_BYTES):
                yield lines[start : start + _CHUNK_BYTES]
    if frames := end():
        yield frames
