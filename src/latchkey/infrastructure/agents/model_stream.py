"""The stream in which a model answers, checked for being one and for being whole."""

import re
from collections.abc import AsyncIterator

import httpx2

from latchkey.domain.errors import ModelBadResponse

MAX_STREAM_BYTES = 64 * 1024 * 1024
LONGEST_RETRY_AFTER_S = 5.0

# Inside a JSON string these would have their quotes escaped, so nothing that a model says matches.
_TERMINAL = re.compile(
    rb'[\r\n]data: ?\[DONE\]|"finish_reason": ?"(?:(?P<cut_short>length)|\w+)"|"error": ?\{'
    rb'|"type": ?"(?:response\.(?:completed|failed|incomplete)|error)"'
)
_OVERLAP = 64


async def check_response(response: httpx2.Response) -> None:
    """A response hook: an answer is let through as long as it is a whole event stream.

    The SDK takes HTML, `{}` and a stream that breaks off for an answer. What is found is raised where the
    stream is read, because there nothing is tried again.
    """
    if response.status_code == httpx2.codes.OK and isinstance(response.stream, httpx2.AsyncByteStream):
        media_type = response.headers.get("content-type", "nothing").partition(";")[0].strip().lower()
        response.stream = ModelStream(response.stream, media_type)
    elif _asks_for_patience(response):
        # The OpenAI client would sleep through a turn; whoever waits for the turn can decide better.
        response.headers["x-should-retry"] = "false"


def _asks_for_patience(response: httpx2.Response) -> bool:
    try:
        return float(response.headers.get("retry-after", "0")) > LONGEST_RETRY_AFTER_S
    except ValueError:
        return True


class ModelStream(httpx2.AsyncByteStream):
    """Passes the bytes on as they come. Raises `ModelBadResponse` where they are not, or end before, an answer."""

    def __init__(self, stream: httpx2.AsyncByteStream, media_type: str) -> None:
        self._stream = stream
        self._media_type = media_type
        self._is_whole = False
        self._size = 0
        self._tail = b""

    async def __aiter__(self) -> AsyncIterator[bytes]:
        if self._media_type != "text/event-stream":
            raise ModelBadResponse(
                f"The model's server answered with {self._media_type} instead of an event stream: check its base URL."
            )
        try:
            async for chunk in self._stream:
                self._read(chunk)
                yield chunk
        except (httpx2.ReadError, httpx2.RemoteProtocolError) as error:
            raise ModelBadResponse("The connection broke in the middle of the model's answer.") from error
        if not self._is_whole:
            raise ModelBadResponse("The model's answer broke off before its end.")

    def _read(self, chunk: bytes) -> None:
        self._size += len(chunk)
        if self._size > MAX_STREAM_BYTES:
            raise ModelBadResponse(f"The model's answer is longer than {MAX_STREAM_BYTES} bytes.")
        if not self._is_whole:
            seen = self._tail + chunk
            end = _TERMINAL.search(seen)
            if end is not None and end["cut_short"]:
                raise ModelBadResponse("The model's answer was cut short: it or the conversation is too long.")
            self._is_whole = end is not None
            self._tail = seen[-_OVERLAP:]

    async def aclose(self) -> None:
        await self._stream.aclose()
