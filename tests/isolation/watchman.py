"""Looks at every byte that anybody is answered, for marks of somebody else."""

import base64
import binascii
import re
from urllib.parse import unquote_to_bytes

import httpx2

_UUID = rb"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}"
_MARK = re.compile(_UUID + rb"|lk_[A-Za-z0-9_-]{40,}|(?:canary|key|walker)-[0-9a-f]{32}")
_CURSOR = re.compile(rb'"next_?[cC]ursor":"(?:[a-z]+:)?([A-Za-z0-9_-]+)"')


class Watchman:
    """A mark is whoever's was told or said it first; from then on it may be told to them alone.

    Ids that somebody has named themselves may be repeated to them; canaries, which nobody else ever names, may not.
    He counts the `answers` that he has seen, and keeps the names of the doors that have `opened` to somebody.
    """

    def __init__(self) -> None:
        self._owners: dict[bytes, str] = {}
        self._named: dict[str, set[bytes]] = {}
        self.opened: set[str] = set()
        self.answers = 0

    def claim(self, who: str, *marks: str) -> None:
        """These are theirs."""
        for mark in marks:
            self._owners[mark.encode()] = who

    def judge(self, who: str, request: httpx2.Request, response: httpx2.Response) -> None:
        """Raises `AssertionError` for a mark of somebody else, wherever in the answer, and for a mistake of ours."""
        said = request.url.raw_path + repr(request.headers.raw).encode() + request.content
        named = self._named.setdefault(who, set())
        named |= _marks(unquote_to_bytes(said))
        told = _marks(repr(response.headers.raw).encode() + response.content)
        self.answers += 1
        foreign = {mark for mark in told if self._owners.setdefault(mark, who) != who}
        leaked = {mark for mark in foreign if mark not in named or mark.startswith(b"canary")}
        assert not leaked, (who, leaked, request, response.text)
        assert response.status_code < httpx2.codes.INTERNAL_SERVER_ERROR, (request, response.text)


def _marks(text: bytes) -> set[bytes]:
    """Those in a cursor too."""
    found = set(_MARK.findall(text))
    for cursor in _CURSOR.findall(text):
        try:
            found |= set(_MARK.findall(base64.urlsafe_b64decode(cursor + b"=" * (-len(cursor) % 4))))
        except binascii.Error as error:
            raise AssertionError(cursor) from error
    return found
