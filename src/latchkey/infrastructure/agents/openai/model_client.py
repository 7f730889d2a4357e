"""The HTTP client of a model's server: requests, retries, the event stream, bounds, and the failures of a turn."""

import asyncio
import json
import ssl
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterator
from contextlib import contextmanager, suppress
from http.cookiejar import CookieJar, DefaultCookiePolicy

import anyio
import httpx2
import structlog
from agents.exceptions import AgentsException, MaxTurnsExceeded, ModelBehaviorError
from openai import APIConnectionError, APIStatusError, AsyncOpenAI, AsyncStream

from latchkey.domain.agent import RUN_METRICS
from latchkey.domain.errors import Failure, MaxSteps, ModelBadResponse
from latchkey.infrastructure.agents.model_failures import (
    MAX_RETRY_WAIT_S,
    malformed_answer,
    tools_lost,
)
from latchkey.infrastructure.agents.openai.server_errors import ERROR_BODY, ModelServerError, request_failure, timeout

_FAILURES: list[tuple[type[Exception], Callable[[], Failure]]] = [
    (MaxTurnsExceeded, MaxSteps.of_turn),
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


_log = structlog.get_logger(__name__)

MAX_STREAM_BYTES = 64 * 1024 * 1024

_BYTE_ORDER_MARK = b"\xef\xbb\xbf"


class EventStreamParser:
    """Returns the data of the events that each chunk completes, whatever the boundaries of the chunks.

    A body that is JSON is one event: some servers answer so, whatever was requested and whatever its media type says.

    The parsers of httpx2 and of OpenAI's client return single events. Whether the end of an answer arrived together
    with its last text decides whether both are stored in one transaction. Both parsers also lose the first event
    after a byte order mark, and a last event without its blank line.
    """

    def __init__(self) -> None:
        self._size = 0
        self._rest = bytearray()
        self._has_begun = False
        self._is_json = False
        self._ends_in_cr = False

    def feed(self, chunk: bytes) -> list[bytes]:
        """Raises `ModelBadResponse` for a web page, and if the stream becomes longer than `MAX_STREAM_BYTES`."""
        self._size += len(chunk)
        if self._size > MAX_STREAM_BYTES:
            raise ModelBadResponse(f"The model's answer is longer than {MAX_STREAM_BYTES} bytes.")
        search_from = max(0, len(self._rest) - 1)
        self._rest += self._normalize_line_ends(chunk)
        if not self._has_begun:
            self._begin()
        if self._is_json:
            return []
        end = self._rest.rfind(b"\n\n", search_from)
        if end < 0:
            return []
        complete, self._rest = bytes(self._rest[:end]), self._rest[end + 2 :]
        return [data for event in complete.split(b"\n\n") for data in _event_data(event)]

    def end(self) -> list[bytes]:
        """The events left at the end of the stream: a server may omit the last blank line."""
        if self._is_json:
            return _json_events(bytes(self._rest))
        return self.feed(b"\n\n")

    def _begin(self) -> None:
        """Recognize the kind of the body by its first character."""
        if len(self._rest) < len(_BYTE_ORDER_MARK) and _BYTE_ORDER_MARK.startswith(self._rest):
            return
        head = self._rest.removeprefix(_BYTE_ORDER_MARK).lstrip()
        if head:
            self._rest, self._has_begun = head, True
            self._is_json = head.startswith((b"{", b"["))
        if head.startswith(b"<"):
            raise ModelBadResponse("The model's server answered with a web page: check OPENAI_BASE_URL.")

    def _normalize_line_ends(self, chunk: bytes) -> bytes:
        """Replace CR and CRLF by LF, also if a chunk ends between CR and LF."""
        if self._ends_in_cr:
            chunk, self._ends_in_cr = chunk.removeprefix(b"\n"), not chunk
        if b"\r" in chunk:
            self._ends_in_cr = chunk.endswith(b"\r")
            chunk = chunk.replace(b"\r\n", b"\n").replace(b"\r", b"\n")
        return chunk


def _event_data(event: bytes) -> list[bytes]:
    """The data of one event. An event of the Responses API that has its type only in its name gets it in its data."""
    name = b""
    lines: list[bytes] = []
    for line in event.split(b"\n"):
        field, _, value = line.partition(b":")
        if field == b"data":
            lines.append(value.removeprefix(b" "))
        elif field == b"event":
            name = value.strip()
    data = b"\n".join(lines)
    if not data.strip():
        return []
    if name == b"error":
        return [_error_data(data)]
    if name.startswith(b"response.") and b'"%s"' % name not in data and data.startswith(b'{"'):
        return [b'{"type":"%s",%s' % (name, data[1:])]
    return lines if len(lines) > 1 and all(map(_is_whole_event, lines)) else [data]


def _error_data(data: bytes) -> bytes:
    """The data of an event with the name `error` as an object with that member."""
    try:
        error = json.loads(data)
    except ValueError:
        error = data.decode("utf-8", "replace")
    return json.dumps(error if isinstance(error, dict) and error.get("error") else {"error": error or "error"}).encode()


def _is_whole_event(line: bytes) -> bool:
    """Whether a line of data is an event of its own: some servers leave out the blank lines between events."""
    if line.startswith(b"[DONE]"):
        return True
    try:
        return isinstance(json.loads(line), dict)
    except ValueError:
        return False


def _json_events(body: bytes) -> list[bytes]:
    """The events of a body that is JSON: an object, a list of objects, or an object in each line."""
    try:
        value = json.loads(body)
    except ValueError:
        return [line for line in body.split(b"\n") if line.strip()]
    return [json.dumps(item).encode() for item in value] if isinstance(value, list) else [body]


MAX_RETRIES = 2

MAX_ERROR_BYTES = 2048
"""So much of an error's body is read, for the log."""

_RETRY_COUNT = "x-stainless-retry-count"
_ERROR_BODY_S = 2.0
_DRAIN_S = 0.1
_OPENAI_HOST = "api.openai.com"
_TIMEOUT = httpx2.Timeout(30, read=300, connect=10)
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
            event_hooks={"request": [_prepare_request], "response": [_handle_response]},
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
        self._api_key = api_key

    @property
    def is_openai(self) -> bool:
        """Whether the server is OpenAI's own."""
        host = self._client.base_url.host
        return host == _OPENAI_HOST or host.endswith(f".{_OPENAI_HOST}")

    async def aclose(self) -> None:
        await self._client.close()

    async def stream(self, request: bytes) -> AsyncGenerator[list[bytes], None]:
        """Send a request and return the data of the answer's events, one list for each chunk of the response.

        The consumer may stop at the end of the answer, whatever the server does then. Raises the `TurnFailed` that says
        why there is no answer or no more of it. An answer that has begun is never requested again.
        """
        response = await self._send(request)
        body = response.aiter_bytes()
        try:
            parser = EventStreamParser()
            async for chunk in body:
                if events := parser.feed(chunk):
                    yield events
            if events := parser.end():
                yield events
        except GeneratorExit:
            await _drain(body)
            raise
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
            failure = request_failure(error)
            raise failure from failure.__cause__
        return stream.response

    def log_failure(self, failure: Failure) -> None:
        """Log the status and the words with which the server has refused a request or ended its answer."""
        error = failure.__cause__
        if isinstance(error, ModelServerError):
            error.redact(self._api_key)
            _log.warning(
                "model_request_failed",
                status=error.status,
                server_code=", ".join(error.codes) or None,
                server_message=error.message,
                code=failure.code,
            )


async def _drain(body: AsyncIterator[bytes]) -> None:
    """Read what is left after the end of an answer, which usually has arrived, so that the connection is used again."""
    with suppress(TimeoutError, httpx2.HTTPError, httpx2.StreamError, *_CONNECTION_ERRORS):
        async with asyncio.timeout(_DRAIN_S):
            async for _ in body:
                pass


def _endpoint_url(base_url: httpx2.URL, path: str) -> httpx2.URL:
    """The path below the base URL, whose query stays: some providers expect the version of the API there."""
    base_path, question_mark, query = base_url.raw_path.partition(b"?")
    return base_url.copy_with(raw_path=base_path.rstrip(b"/") + b"/" + path.encode() + question_mark + query)


async def _prepare_request(request: httpx2.Request) -> None:
    """Count a retry, and remove the headers in which OpenAI's client describes this machine."""
    metrics = RUN_METRICS.get()
    if metrics is not None and request.headers.get(_RETRY_COUNT, "0") != "0":
        metrics.retries += 1
    headers = request.headers.raw
    request.headers = httpx2.Headers([(name, value) for name, value in headers if not _is_platform_header(name)])


def _is_platform_header(name: bytes) -> bool:
    return name.lower().startswith(b"x-stainless-")


async def _handle_response(response: httpx2.Response) -> None:
    """Note the status, prevent a retry if the wait demanded exceeds `MAX_RETRY_WAIT_S`, and keep the begin of the body.

    OpenAI's client obeys `x-should-retry`, and would otherwise wait up to two minutes. The rest of the body is not
    read: it can have any size.
    """
    if (metrics := RUN_METRICS.get()) is not None:
        metrics.upstream_status = response.status_code
    if response.is_success:
        return
    if not _requested_wait_s(response.headers) <= MAX_RETRY_WAIT_S:
        response.headers["x-should-retry"] = "false"
    response.extensions[ERROR_BODY] = await _read_head(response)
    await response.aclose()


async def _read_head(response: httpx2.Response) -> bytes:
    """Read the begin of a body from its stream: OpenAI's client fails on a response that looks read and is not."""
    head = b""
    with suppress(TimeoutError, httpx2.HTTPError, httpx2.StreamError, *_CONNECTION_ERRORS):
        async with asyncio.timeout(_ERROR_BODY_S):
            async for chunk in response.stream:  # type: ignore[union-attr]
                head += chunk[:MAX_ERROR_BYTES]
                if len(head) >= MAX_ERROR_BYTES:
                    break
    return head[:MAX_ERROR_BYTES]


def _requested_wait_s(headers: httpx2.Headers) -> float:
    """In seconds; infinite for a header that is not a number, such as a date."""
    try:
        if "retry-after-ms" in headers:
            return float(headers["retry-after-ms"]) / 1000
        return float(headers.get("retry-after", "0"))
    except ValueError:
        return float("inf")
