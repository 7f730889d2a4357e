"""Parses the server-sent events in which a model's server streams an answer."""

from latchkey.domain.errors import ModelBadResponse

MAX_STREAM_BYTES = 64 * 1024 * 1024

_BYTE_ORDER_MARK = b"\xef\xbb\xbf"


class EventStreamParser:
    """Returns the data of the events that each chunk completes, whatever the boundaries of the chunks.

    The parsers of httpx2 and of OpenAI's client return single events. Whether the end of an answer arrived together
    with its last text decides whether both are stored in one transaction. Both parsers also lose the first event
    after a byte order mark, and a last event without its blank line.
    """

    def __init__(self) -> None:
        self._size = 0
        self._rest = bytearray()
        self._has_begun = False
        self._ends_in_cr = False

    def feed(self, chunk: bytes) -> list[bytes]:
        """Raises `ModelBadResponse` if the stream becomes longer than `MAX_STREAM_BYTES`."""
        self._size += len(chunk)
        if self._size > MAX_STREAM_BYTES:
            raise ModelBadResponse(f"The model's answer is longer than {MAX_STREAM_BYTES} bytes.")
        search_from = max(0, len(self._rest) - 1)
        self._rest += self._normalize_line_ends(chunk)
        end = self._rest.rfind(b"\n\n", search_from)
        if end < 0:
            return []
        complete, self._rest = bytes(self._rest[:end]), self._rest[end + 2 :]
        if not self._has_begun:
            complete, self._has_begun = complete.removeprefix(_BYTE_ORDER_MARK), True
        return [data for event in complete.split(b"\n\n") if (data := _event_data(event))]

    def end(self) -> list[bytes]:
        """The events left at the end of the stream: a server may omit the last blank line."""
        return self.feed(b"\n\n")

    def _normalize_line_ends(self, chunk: bytes) -> bytes:
        """Replace CR and CRLF by LF, also if a chunk ends between CR and LF."""
        if self._ends_in_cr:
            chunk, self._ends_in_cr = chunk.removeprefix(b"\n"), not chunk
        if b"\r" in chunk:
            self._ends_in_cr = chunk.endswith(b"\r")
            chunk = chunk.replace(b"\r\n", b"\n").replace(b"\r", b"\n")
        return chunk


def _event_data(event: bytes) -> bytes:
    fields = (line.partition(b":") for line in event.split(b"\n"))
    return b"\n".join(value.removeprefix(b" ") for name, _, value in fields if name == b"data")
