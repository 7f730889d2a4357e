"""Searches every byte of every response for marks of another user."""

import base64
import binascii
import re
from urllib.parse import unquote_to_bytes

import httpx2

_UUID = rb"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}"
_MARK = re.compile(_UUID + rb"|lk_[A-Za-z0-9_-]{40,}|(?:canary|key|tenant)-[0-9a-f]{32}")
_CURSOR = re.compile(rb'"next_?[cC]ursor":"(?:[a-z]+:)?([A-Za-z0-9_-]+)"')


class LeakDetector:
    """Assigns each mark (id, token, canary, key, user id) to the first user that sends or receives it.

    From then on only that user may receive it. Exception: a response may repeat an id that the user sent, but never a
    canary. `response_count` counts the checked responses; `succeeded` holds the names of endpoints with a success.
    """

    def __init__(self) -> None:
        self._owners: dict[bytes, str] = {}
        self._sent: dict[str, set[bytes]] = {}
        self.succeeded: set[str] = set()
        self.response_count = 0

    def register(self, user: str, *marks: str) -> None:
        """Assign the marks to that user."""
        for mark in marks:
            self._owners[mark.encode()] = user

    def check(self, user: str, request: httpx2.Request, response: httpx2.Response) -> None:
        """Raises `AssertionError` if the response has a mark of another user anywhere, or a status of 500 or more."""
        sent = self._sent.setdefault(user, set())
        sent |= _marks(unquote_to_bytes(request.url.raw_path + repr(request.headers.raw).encode() + request.content))
        received = _marks(repr(response.headers.raw).encode() + response.content)
        self.response_count += 1
        foreign = {mark for mark in received if self._owners.setdefault(mark, user) != user}
        leaked = {mark for mark in foreign if mark not in sent or mark.startswith(b"canary")}
        assert not leaked, (user, leaked, request, response.text)
        assert response.status_code < httpx2.codes.INTERNAL_SERVER_ERROR, (request, response.text)


def _marks(text: bytes) -> set[bytes]:
    """All marks of a text, also those inside its cursors."""
    marks = set(_MARK.findall(text))
    for cursor in _CURSOR.findall(text):
        try:
            marks |= set(_MARK.findall(base64.urlsafe_b64decode(cursor + b"=" * (-len(cursor) % 4))))
        except binascii.Error as error:
            raise AssertionError(cursor) from error
    return marks
