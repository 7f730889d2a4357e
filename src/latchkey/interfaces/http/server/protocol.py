"""HTTP/1.1 connections: uvicorn's protocol with deadlines, bounds on sizes, and a lingering close.

Only this module uses undocumented names of uvicorn. `tests/unit/http/test_uvicorn_internals.py` fails with those that
are gone.
"""

import asyncio
import logging
import re
from collections.abc import Callable
from typing import Any

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

from latchkey.interfaces.http.server.response_budget import RESPONSES

HEAD_S = 15.0
"""For the request line and headers, from the first byte; also for that byte on a new connection."""
MESSAGE_S = 60.0
"""For the whole request: 8 MiB take this long at 1 Mbit/s."""
STALL_S = 60.0
"""A connection whose client receives nothing for this long, although bytes are waiting, is aborted."""
LINGER_S = 10.0
"""How long input is discarded after the last response of a connection, so that the client can read that response."""
MAX_HEAD_BYTES = 64 * 1024
MAX_MESSAGE_BYTES = 16 * 1024 * 1024
"""For a whole request. The application has a lower limit; this one bounds what is discarded after its refusal."""
MAX_UNFINISHED_BYTES = 256 * 1024 * 1024
"""For all incomplete requests of a process. Beyond it, large requests are aborted and small ones go on."""

_REFUSAL = b"HTTP/1.1 %s\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"
_TIMEOUT = b"408 Request Timeout"
_HEAD_TOO_LARGE = b"431 Request Header Fields Too Large"
_UPGRADE = re.compile(rb"\r\nupgrade:", re.IGNORECASE)

_INCOMPLETE = "ASGI callable returned without completing response."
# The application ends a response like this on purpose, so that the client sees that it is cut, and logs the request.
logging.getLogger("uvicorn.error").addFilter(lambda record: record.msg != _INCOMPLETE)


class HttpProtocol(HttpToolsProtocol):
    """A connection whose requests must be complete in time and in bounds, which uvicorn by itself does not demand.

    A request that arrives in one piece, as almost all do, starts no timer.
    """

    unfinished_bytes = 0
    """Bytes that this process holds of incomplete requests."""

    user_id: str | None = None
    """The user to whom the unsent bytes of this connection are attributed."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._in_request = self._has_head = self._discards_input = False
        self._received = self._uncounted = self._held = 0
        self._deadline: asyncio.TimerHandle | None = None
        self._stall: asyncio.TimerHandle | None = None
        self._refusal: bytes | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as in uvicorn
        super().connection_made(transport)
        self._cycle_transport = _CycleTransport(transport, self.loop, self._close_after_response)
        # Browsers open connections in advance: an unused one is closed without a response.
        self._deadline = self.loop.call_later(HEAD_S, transport.close)

    def connection_lost(self, exc: Exception | None) -> None:
        self._cancel_deadline()
        self._hold(0)
        if self._stall is not None:
            self._end_stall()
        super().connection_lost(exc)

    @property
    def unsent_bytes(self) -> int:
        """The bytes of responses that the client has not received yet."""
        return self.transport.get_write_buffer_size()

    def pause_writing(self) -> None:
        # The current request may be a later one, whose credential is not verified yet.
        user: Any = self.scope.get("user")
        if user is not None:
            self.user_id = user.user_id
        RESPONSES.add(self)
        self._await_progress()
        super().pause_writing()

    def resume_writing(self) -> None:
        self._end_stall()
        super().resume_writing()

    def _await_progress(self) -> None:
        self._stall = self.loop.call_later(STALL_S, self._abort_if_stalled, self.unsent_bytes)

    def _abort_if_stalled(self, unsent_bytes: int) -> None:
        if self.unsent_bytes >= unsent_bytes:
            self.transport.abort()
        else:
            self._await_progress()

    def _end_stall(self) -> None:
        if self._stall is not None:
            self._stall.cancel()
            self._stall = None
        RESPONSES.remove(self)

    def data_received(self, data: bytes) -> None:
        if self._discards_input:
            self._discard(data)
            return
        if not self._in_request:
            # Empty lines ahead of a request are ignored (RFC 9112, 2.2) and do not extend the deadline.
            if not data.strip(b"\r\n"):
                return
            self._cancel_deadline()
            data = _without_upgrade(data)
        self._uncounted = len(data)
        super().data_received(data)
        if self._in_request:
            self._check_incomplete_request()
        else:
            self._cancel_deadline()
            self._restart_keep_alive()

    def on_message_begin(self) -> None:
        self._in_request, self._has_head = True, False
        self._received = 0
        super().on_message_begin()

    def on_headers_complete(self) -> None:
        super().on_headers_complete()
        self._has_head = True
        self.cycle.transport = self._cycle_transport

    def on_message_complete(self) -> None:
        self._in_request = False
        self._uncounted = 0  # it is unknown how much of the data belongs to the next request
        self._hold(0)
        super().on_message_complete()

    def on_response_complete(self) -> None:
        self._cycle_transport.flush()
        if self._is_answered_early:
            self._hold(0)
            self.cycle.body = bytearray()
        super().on_response_complete()
        if self._refusal is not None and self.cycle.response_complete:
            self._refuse(self._refusal)

    def _unsupported_upgrade_warning(self) -> None:
        """Ignore all further input: after an offer to upgrade, the parser would read the body as another request."""
        self._discards_input = True
        self.cycle.keep_alive = False

    @property
    def _is_answered_early(self) -> bool:
        """Whether the current request has its response although it is incomplete; the rest of it is discarded."""
        return self._in_request and self._has_head and self.cycle.response_complete

    def _check_incomplete_request(self) -> None:
        self._received += self._uncounted
        self._hold(0 if self._is_answered_early else self._received)
        if self._is_too_large():
            self._abort_request(_HEAD_TOO_LARGE)
        elif self._deadline is None:
            self._deadline = self.loop.call_later(HEAD_S, self._on_head_deadline)

    def _is_too_large(self) -> bool:
        if not self._has_head or self._received <= MAX_HEAD_BYTES:
            return self._received > MAX_HEAD_BYTES
        is_memory_full = self._held > 0 and HttpProtocol.unfinished_bytes > MAX_UNFINISHED_BYTES
        return is_memory_full or self._received > MAX_MESSAGE_BYTES

    def _hold(self, held: int) -> None:
        HttpProtocol.unfinished_bytes += held - self._held
        self._held = held

    def _on_head_deadline(self) -> None:
        if self._has_head:
            self._deadline = self.loop.call_later(MESSAGE_S - HEAD_S, self._abort_request, _TIMEOUT)
        else:
            self._abort_request(_TIMEOUT)

    def _abort_request(self, status: bytes) -> None:
        """End the connection because of the current request.

        An incomplete head is answered with the status, after the responses to earlier requests. Once the head is
        complete, the application answers: it has done so already, or it receives `http.disconnect`.
        """
        self._discards_input = True
        self._hold(0)
        self._cycle_transport.flush()
        cycle: RequestResponseCycle | None = self.cycle
        is_answering = cycle is not None and not cycle.response_complete
        if self._has_head:
            if is_answering:
                self.cycle.disconnected = True
                self.cycle.message_event.set()
            self.pipeline.clear()
            self.transport.close()
        elif is_answering:
            self._refusal = status
        else:
            self._refuse(status)

    def _refuse(self, status: bytes) -> None:
        if not self.transport.is_closing():
            self.transport.write(_REFUSAL % status)
            self._linger()

    def _close_after_response(self) -> None:
        """Close the connection after its last response; linger if the client is still sending."""
        if self._in_request or self._discards_input or self.pipeline:
            self._linger()
        else:
            self.transport.close()

    def _linger(self) -> None:
        """Send the end of the stream and discard input for a while before closing.

        Closing a socket with unread input resets the connection, and the client loses the response with it.
        """
        self._discards_input = True
        self._refusal = None  # nothing can be written after the end of the stream
        self.pipeline.clear()
        self._cancel_deadline()
        if not self.transport.is_closing():
            self.transport.write_eof()
            self.flow.resume_reading()
            self._deadline = self.loop.call_later(LINGER_S, self.transport.close)

    def _discard(self, data: bytes) -> None:
        self._received += len(data)
        if self._received > MAX_MESSAGE_BYTES:
            self.transport.close()

    def _restart_keep_alive(self) -> None:
        """Start the keep-alive timeout, which uvicorn does not for a request that ends after its response."""
        cycle: RequestResponseCycle | None = self.cycle
        is_idle = cycle and cycle.response_complete and not self.pipeline and not self.transport.is_closing()
        if is_idle and self.timeout_keep_alive_task is None:
            timeout_s, close = self.timeout_keep_alive, self.timeout_keep_alive_handler
            self.timeout_keep_alive_task = self.loop.call_later(timeout_s, close)

    def _cancel_deadline(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None


class _CycleTransport(asyncio.Transport):
    """The transport as uvicorn's request cycle uses it: writes are joined, and `close` does something else.

    uvicorn writes the head and the body of a response apart, which costs two system calls and two packets. A write is
    held until the next one, the end of the response or the next iteration of the event loop, whichever is first.
    """

    def __init__(
        self, transport: asyncio.Transport, loop: asyncio.AbstractEventLoop, on_close: Callable[[], None]
    ) -> None:
        super().__init__()
        self._transport = transport
        self._loop = loop
        self._on_close = on_close
        self._held: bytes | bytearray | memoryview[Any] = b""

    def write(self, data: "bytes | bytearray | memoryview[Any]") -> None:
        if self._held and data:
            held, self._held = self._held, b""
            self._transport.writelines((held, data))
        elif data:
            self._held = data
            self._loop.call_soon(self.flush)

    def flush(self) -> None:
        """Write what is held. A closed connection drops it."""
        if self._held:
            held, self._held = self._held, b""
            if not self._transport.is_closing():
                self._transport.write(held)

    def is_closing(self) -> bool:
        return self._transport.is_closing()

    def close(self) -> None:
        self.flush()
        self._on_close()


def _without_upgrade(data: bytes) -> bytes:
    """Rename the `Upgrade` header: this server accepts no offer to change the protocol (RFC 9110, 7.8).

    The parser would stop at such a request and lose its body. Java's HTTP client sends the offer with every first
    request.
    """
    if b"pgrade:" not in data and b"PGRADE:" not in data:
        return data
    head, end, rest = data.partition(b"\r\n\r\n")
    return _UPGRADE.sub(b"\r\nx-upgrade-ignored:", head) + end + rest
