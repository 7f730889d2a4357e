"""Events of a turn as server-sent events, as the HTML standard has them, their lines ended by LF alone."""

from collections.abc import AsyncGenerator, AsyncIterator
from typing import Annotated

from litestar.response import Stream
from msgspec import Meta, Struct

from latchkey.domain.turn_event import EventName, TurnEvent

MEDIA_TYPE = "text/event-stream"

_HEADERS = {"X-Accel-Buffering": "no"}
_COMMENT = b":\n\n"
_CHUNK = 32 * 1024
"""So much at once waits in a connection whose client does not read."""


class StreamedEvent(Struct, frozen=True):
    """One of the server-sent events. `id` is its number in the turn.

    `data` is a JSON object with `turn_id` and `seq`. The texts of `message.delta`, joined, are the answer; the last
    event is `turn.completed`, `turn.failed`, `turn.cancelled` or `turn.interrupted`.
    """

    id: str
    event: EventName
    data: Annotated[str, Meta(extra_json_schema={"contentMediaType": "application/json"})]


def event_stream(batches: AsyncGenerator[list[TurnEvent], None], headers: dict[str, str] | None = None) -> Stream:
    """A response that ends with the events. Where there are none for long, a comment keeps the connection."""
    return Stream(_lines(batches), media_type=MEDIA_TYPE, headers={**_HEADERS, **(headers or {})}, status_code=200)


def wants_events(accept: str | None) -> bool:
    """Whether a client asks for events: it names their media type."""
    return MEDIA_TYPE in (accept or "").lower()


async def _lines(batches: AsyncGenerator[list[TurnEvent], None]) -> AsyncIterator[bytes]:
    async for batch in batches:
        lines = b"".join(map(_written, batch)) or _COMMENT
        for start in range(0, len(lines), _CHUNK):
            yield lines[start : start + _CHUNK]


def _written(event: TurnEvent) -> bytes:
    return b"id: %d\nevent: %s\ndata: %s\n\n" % (event.seq, event.name.encode(), event.data)
