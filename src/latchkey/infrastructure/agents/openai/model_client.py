"""The HTTP client of a model's server: requests, retries, and bounds on what the server sends."""

import ssl
from collections.abc import AsyncGenerator
from http.cookiejar import CookieJar, DefaultCookiePolicy

import anyio
import httpx2
from openai import APIConnectionError, APIStatusError, AsyncOpenAI, AsyncStream

from latchkey.domain.errors import ModelBadResponse
from latchkey.infrastructure.agents.model_failures import MAX_RETRY_WAIT_S
from latchkey.infrastructure.agents.openai.errors import request_failure, timeout
from latchkey.infrastructure.agents.openai.sse import EventStreamParser

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
