"""Counts transactions, statements and round trips on a connection to PostgreSQL ("Message Formats" in its manual)."""

from typing import NamedTuple

_TRANSACTION_ENDS = (b"COMMIT", b"ROLLBACK")
_COMMAND_COMPLETE = b"C"
_HEADER = 5
"""The type of a message, and its length without the type."""
_NO_TLS = b"N"
"""The only response without a length. The server sends it only at the beginning of a connection."""


class Count(NamedTuple):
    """Finished transactions, completed statements (BEGIN and COMMIT included), and round trips."""

    transactions: int = 0
    statements: int = 0
    round_trips: int = 0

    def __add__(self, other: "Count") -> "Count":  # type: ignore[override]  # adds numbers, does not join tuples
        return Count(*(left + right for left, right in zip(self, other, strict=True)))

    def since(self, before: "Count") -> "Count":
        return Count(*(now - then for now, then in zip(self, before, strict=True)))


class TrafficCounter:
    """Observes both directions of one connection, in order."""

    def __init__(self) -> None:
        self.count = Count()
        self.listens = False
        self._last_from_server = True
        self._unread = b""
        self._begun = False

    def observe(self, data: bytes, *, from_server: bool) -> None:
        """A round trip begins when the client sends after the server has sent."""
        if not from_server and self._last_from_server:
            self.count += Count(round_trips=1)
        self._last_from_server = from_server
        if from_server:
            self._read(data)

    def _read(self, data: bytes) -> None:
        """Read whole messages, however the data was cut into chunks."""
        if not self._begun and data == _NO_TLS:
            data = b""
        self._begun = True
        self._unread += data
        while len(self._unread) >= _HEADER and (end := 1 + int.from_bytes(self._unread[1:_HEADER])) <= len(
            self._unread
        ):
            if self._unread[:1] == _COMMAND_COMPLETE:
                self._complete(self._unread[_HEADER:end])
            self._unread = self._unread[end:]

    def _complete(self, tag: bytes) -> None:
        self.count += Count(tag.startswith(_TRANSACTION_ENDS), 1)
        self.listens |= tag.startswith(b"LISTEN")
