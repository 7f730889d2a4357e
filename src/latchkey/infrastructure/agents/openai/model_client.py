"""The HTTP client of a model's server: requests, retries, the event stream, bounds, and the failures of a turn."""

import math
import ssl
from collections.abc import AsyncGenerator, Callable, Iterator
from contextlib import contextmanager
from http.cookiejar import CookieJar, DefaultCookiePolicy

import anyio
import httpx2
from agents.exceptions import AgentsException, MaxTurnsExceeded, ModelBehaviorError
from httpx2 import Headers
from openai import APIConnectionError, APIStatusError, APITimeoutError, AsyncOpenAI, AsyncStream

from latchkey.domain.errors import Failure, ModelBadResponse, ModelUnavailable
from latchkey.infrastructure.agents.model_failures import (
    MAX_REPORTED_RETRY_AFTER_S,
    MAX_RETRY_WAIT_S,
    TOO_MANY_REQUESTS,
    error_status,
    malformed_answer,
    max_steps_exceeded,
    rate_limited,
    tools_lost,
)

_ADVICE = {
    400: "check that the model and LATCHKEY_OPENAI_API fit the server",
    401: "check OPENAI_API_KEY",
    403: "check what OPENAI_API_KEY may use",
    404: "check LATCHKEY_MODEL, OPENAI_BASE_URL and LATCHKEY_OPENAI_API",
    422: "check that the model and LATCHKEY_OPENAI_API fit the server",
}

_FAILURES: list[tuple[type[Exception], Callable[[], Failure]]] = [
    (MaxTurnsExceeded, max_steps_exceeded),
    (ModelBehaviorError, malformed_answer),
    (AgentsException, tools_lost),
]


@contextmanager
def sdk_errors_as_failures() -> Iterator[None]:
    """Raise the failure that an error of the Agents SDK means. Any other error is a bug and passes unchanged."""
    try:
        yield
    except Failure:
        raise
    except Exception as error:
        for error_type, failure in _FAILURES:
            if isinstance(error, error_type):
                raise failure() from error
        raise


def request_failure(error: APIConnectionError | APIStatusError) -> Failure:
    """The model's server sent no answer, or an error instead of one."""
    if isinstance(error, APIStatusError):
        return _status_failure(error.status_code, error.response.headers)
    if isinstance(error, APITimeoutError):
        return timeout()
    return ModelUnavailable("The model's server cannot be reached: check OPENAI_BASE_URL.")


def timeout() -> Failure:
    return ModelUnavailable("The model did not answer in time.")


def error_event(code: object) -> Failure:
    """The model's server reported an error with this code inside its answer."""
    if code == "rate_limit_exceeded":
        return rate_limited()
    return ModelUnavailable("The model's server reported an error in the middle of its answer.")


def _status_failure(status: int, headers: Headers) -> Failure:
    if status == TOO_MANY_REQUESTS:
        return rate_limited(_parse_retry_after(headers.get("retry-after")))
    return error_status(status, _ADVICE.get(status))


def _parse_retry_after(header: str | None) -> int | None:
    """Whole seconds, or None unless they are a number between 1 and `MAX_REPORTED_RETRY_AFTER_S`."""
    try:
        seconds = math.ceil(float(header or ""))
    except (ValueError, OverflowError):
        return None
    return seconds if 0 < seconds <= MAX_REPORTED_RETRY_AFTER_S else None


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


MAX_RETRIES = 2

_TIMEOUT = httpx2.Timeout(30, read=300, connect=10)
_EVENT_STREAM = "text/event-stream"
_CONNECTION_ERRORS = (httpx2.RequestError, ssl.SSLError, anyio.EndOfStream)
"""httpx2 does not wrap all TLS errors of AnyIO: see `request_exceptions` of OpenAI's client."""


class ModelClient:
    """Sends requests to one endpoint of a model's server. OpenAI's client retries them.

    Follows no redirects: a redirect could send a conversation to another server. Stores no cookies.
    """

    def __init__(
        self, path: str, api_key: str, base_url: str | None, transport: httpx2.AsyncBaseTransport | None
    ) -> None:
        http_client = httpx2.AsyncClient(
            transport=transport,
            limits=httpx2.Limits(max_connections=1000, max_keepalive_connections=100),
            cookies=CookieJar(DefaultCookiePolicy(allowed_domains=[])),
            follow_redirects=False,
            event_hooks={"request": [_remove_platform_headers], "response": [_handle_error_response]},
        )
        self._client = AsyncOpenAI(
            api_key=api_key,
            base_url=base_url,
            http_client=http_client,
            timeout=_TIMEOUT,
            max_retries=MAX_RETRIES,
            # Without compression, each event can be read as soon as it is sent.
            default_headers={"Accept-Encoding": "identity", "User-Agent": "Latchkey"},
        )
        self._url = str(_endpoint_url(self._client.base_url, path))

    async def aclose(self) -> None:
        await self._client.close()

    async def stream(self, body: bytes) -> AsyncGenerator[list[bytes], None]:
        """Send a request and return the data of the answer's events, one list for each chunk of the response.

        Raises the `TurnFailed` that says why there is no answer or no more of it. An answer that has begun is never
        requested again.
        """
        response = await self._send(body)
        try:
            _check_media_type(response)
            parser = EventStreamParser()
            async for chunk in response.aiter_bytes():
                if events := parser.feed(chunk):
                    yield events
            if events := parser.end():
                yield events
        except httpx2.TimeoutException as error:
            raise timeout() from error
        except _CONNECTION_ERRORS as error:
            raise ModelBadResponse("The connection was lost in the middle of the model's answer.") from error
        finally:
            await response.aclose()

    async def _send(self, body: bytes) -> httpx2.Response:
        try:
            stream = await self._client.post(
                self._url, cast_to=object, content=body, stream=True, stream_cls=AsyncStream[object]
            )
        except (APIConnectionError, APIStatusError) as error:
            raise request_failure(error) from error
        return stream.response


def _endpoint_url(base_url: httpx2.URL, path: str) -> httpx2.URL:
    """The path below the base URL, whose query stays: some providers expect the version of the API there."""
    base_path, question_mark, query = base_url.raw_path.partition(b"?")
    return base_url.copy_with(raw_path=base_path.rstrip(b"/") + b"/" + path.encode() + question_mark + query)


async def _remove_platform_headers(request: httpx2.Request) -> None:
    """Remove the headers in which OpenAI's client describes this machine."""
    headers = request.headers.raw
    request.headers = httpx2.Headers([(name, value) for name, value in headers if not _is_platform_header(name)])


def _is_platform_header(name: bytes) -> bool:
    return name.lower().startswith(b"x-stainless-")


async def _handle_error_response(response: httpx2.Response) -> None:
    """Prevent a retry if the server demands a longer wait than `MAX_RETRY_WAIT_S`.

    OpenAI's client obeys `x-should-retry`, and would otherwise wait up to two minutes. The body of an error is not
    read: it can have any size.
    """
    if response.is_success:
        return
    if not _requested_wait_s(response.headers) <= MAX_RETRY_WAIT_S:
        response.headers["x-should-retry"] = "false"
    await response.aclose()


def _requested_wait_s(headers: httpx2.Headers) -> float:
    """In seconds; infinite for a header that is not a number, such as a date."""
    try:
        if "retry-after-ms" in headers:
            return float(headers["retry-after-ms"]) / 1000
        return float(headers.get("retry-after", "0"))
    except ValueError:
        return float("inf")


def _check_media_type(response: httpx2.Response) -> None:
    media_type = response.headers.get("content-type", "no media type").partition(";")[0].strip().lower()
    if media_type != _EVENT_STREAM:
        raise ModelBadResponse(
            f"The model's server answered with {media_type} instead of {_EVENT_STREAM}: check OPENAI_BASE_URL."
        )
