"""What is said on one connection to PostgreSQL, counted as its protocol has it ("Message Formats" in its manual)."""

from typing import NamedTuple

_ENDS = (b"COMMIT", b"ROLLBACK")
_COMPLETE = b"C"
_HEAD = 5
"""What a message is, and its length without that."""
_NO_TLS = b"N"
"""The one thing that a server says without a length, and only at the very beginning."""


class Count(NamedTuple):
    """Transactions that ended, statements that were carried out (their beginnings and ends too), and round trips."""

    transactions: int = 0
    statements: int = 0
    round_trips: int = 0

    def __add__(self, other: "Count") -> "Count":  # type: ignore[override]  # of numbers, not of tuples
        return Count(*(one + more for one, more in zip(self, other, strict=True)))

    def since(self, before: "Count") -> "Count":
        return Count(*(now - then for now, then in zip(self, before, strict=True)))


class Talk:
    """Hears both sides, in order."""

    def __init__(self) -> None:
        self.count = Count()
        self.listens = False
        self._server_spoke_last = True
        self._unread = b""
        self._begun = False

    def hear(self, said: bytes, *, by_server: bool) -> None:
        """A round trip begins where the client speaks after the server did."""
        if not by_server and self._server_spoke_last:
            self.count += Count(round_trips=1)
        self._server_spoke_last = by_server
        if by_server:
            self._read(said)

    def _read(self, said: bytes) -> None:
        """Message by message, however they were cut on the way."""
        if not self._begun and said == _NO_TLS:
            said = b""
        self._begun = True
        self._unread += said
        while len(self._unread) >= _HEAD and (end := 1 + int.from_bytes(self._unread[1:_HEAD])) <= len(self._unread):
            if self._unread[:1] == _COMPLETE:
                self._complete(self._unread[_HEAD:end])
            self._unread = self._unread[end:]

    def _complete(self, tag: bytes) -> None:
        self.count += Count(tag.startswith(_ENDS), 1)
        self.listens |= tag.startswith(b"LISTEN")
