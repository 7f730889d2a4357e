"""One client's connection: uvicorn's HTTP/1.1, for clients that finish in time what they begin."""

import asyncio
import re
from typing import Any

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

HEAD_S = 15.0
"""For the request line and the headers, from the first byte; and for that byte on a new connection."""
MESSAGE_S = 60.0
"""For the whole request. 8 MiB in that time is a slow line of 1 Mbit/s."""
MAX_HEAD_BYTES = 64 * 1024
MAX_MESSAGE_BYTES = 16 * 1024 * 1024
"""What is larger than a body may be is refused by the application; this bounds what comes all the same."""

MAX_DISCARDED_BYTES = 1024 * 1024
"""Of a request that was answered before it was whole; a client that has not read the answer by then never will."""
MAX_UNFINISHED_BYTES = 256 * 1024 * 1024
"""Of all requests of a process that are not whole yet. Beyond it, large ones are refused; small ones go on."""

_REFUSAL = b"HTTP/1.1 %s\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"
_TOO_SLOW = b"408 Request Timeout"
_UPGRADE = re.compile(rb"\r\nupgrade:", re.IGNORECASE)
_TOO_LARGE = b"431 Request Header Fields Too Large"


class Connection(HttpToolsProtocol):
    """Uvicorn itself waits for ever for the rest of a request, and keeps headers and bodies of any size and number.

    What comes in one piece, as almost every request does, costs no timer and is not counted.
    """

    _unfinished = 0
    """Bytes that this process has of all requests that are not whole yet."""

    def __init__(self, *given: Any, **named: Any) -> None:
        super().__init__(*given, **named)
        self._received = self._held = self._begun = 0
        self._has_head = self._is_deaf = False
        self._is_between = True
        self._deadline: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as uvicorn has it
        super().connection_made(transport)
        self._deadline = self.loop.call_later(HEAD_S, self._end_unless_begun)

    def connection_lost(self, exc: Exception | None) -> None:
        self._disarm()
        self._hold(0)
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        if self._is_deaf:
            return
        if self._is_between:
            # Empty lines before a request are nothing (RFC 9112, 2.2), and gain nobody time.
            if not data.strip(b"\r\n"):
                return
            self._disarm()
            data = _without_upgrade(data)
        expected = 1 if self._is_between else 0
        self._begun = 0
        super().data_received(data)
        if self._is_between:
            self._disarm()
            self._keep_alive()
            return
        # How much of a piece belongs to the last of several requests is not known, and so not counted.
        self._received += len(data) if self._begun == expected else 0
        self._hold(0 if self._is_answered else self._received)
        if self._received > MAX_HEAD_BYTES and self._is_too_large():
            self._refuse(_TOO_LARGE)
        elif self._deadline is None:
            self._deadline = self.loop.call_later(HEAD_S, self._end_unless_headed)

    def on_message_begin(self) -> None:
        self._is_between = self._has_head = False
        self._received = 0
        self._begun += 1
        super().on_message_begin()

    def on_headers_complete(self) -> None:
        super().on_headers_complete()
        self._has_head = True

    def on_message_complete(self) -> None:
        self._is_between = True
        self._hold(0)
        super().on_message_complete()

    def on_response_complete(self) -> None:
        """What came of a request that was answered before it was whole is not kept."""
        if self._is_answered:
            self._hold(0)
            self.cycle.body = bytearray()
        super().on_response_complete()

    def _unsupported_upgrade_warning(self) -> None:
        """The parser stands still after an offer to upgrade: what follows would be read as another request."""
        self._is_deaf = True
        self.cycle.keep_alive = False

    @property
    def _is_answered(self) -> bool:
        """Whether the request that is under way has its answer already: the rest of it is thrown away."""
        return self._has_head and not self._is_between and self.cycle.response_complete

    def _is_too_large(self) -> bool:
        """For a head, for any request, for one that is answered, or for what all requests may come to."""
        most = MAX_DISCARDED_BYTES if self._is_answered else MAX_MESSAGE_BYTES
        too_much = self._held > 0 and Connection._unfinished > MAX_UNFINISHED_BYTES
        return not self._has_head or self._received > most or too_much

    def _hold(self, held: int) -> None:
        Connection._unfinished += held - self._held
        self._held = held

    def _keep_alive(self) -> None:
        """Uvicorn forgets it where the end of a request comes after its answer."""
        cycle: RequestResponseCycle | None = self.cycle
        is_idle = cycle and cycle.response_complete and not self.pipeline and not self.transport.is_closing()
        if is_idle and self.timeout_keep_alive_task is None:
            handler = self.timeout_keep_alive_handler
            self.timeout_keep_alive_task = self.loop.call_later(self.timeout_keep_alive, handler)

    def _end_unless_begun(self) -> None:
        """Browsers connect before they have anything to say, so nothing is said to them either."""
        self.transport.close()

    def _end_unless_headed(self) -> None:
        if self._has_head:
            self._deadline = self.loop.call_later(MESSAGE_S - HEAD_S, self._refuse, _TOO_SLOW)
        else:
            self._refuse(_TOO_SLOW)

    def _refuse(self, status: bytes) -> None:
        """Where the application has the request already, it has answered, or hears that the client is gone.

        An earlier one, whose answer is on its way, is answered first.
        """
        self._is_deaf = True
        self._hold(0)
        self.pipeline.clear()
        cycle: RequestResponseCycle | None = self.cycle
        if cycle and not cycle.response_complete:
            if not self._has_head:
                cycle.keep_alive = False
                return
            cycle.disconnected = True
            cycle.message_event.set()
        elif not (self._has_head or self.transport.is_closing()):
            self.transport.write(_REFUSAL % status)
        self.transport.close()

    def _disarm(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None


def _without_upgrade(data: bytes) -> bytes:
    """A request as it would be without the offer to go on in another protocol, which is not taken (RFC 9110, 7.8).

    The parser would drop the body that follows; Java's client makes such an offer with every first request.
    """
    if b"pgrade:" not in data and b"PGRADE:" not in data:
        return data
    head, end, rest = data.partition(b"\r\n\r\n")
    return _UPGRADE.sub(b"\r\nx-not-taken:", head) + end + rest
