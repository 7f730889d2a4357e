"""The server that a model is asked on, over HTTP."""

import asyncio
from collections.abc import AsyncGenerator

import httpx2
from openai import AsyncOpenAI

from latchkey.domain.errors import ModelBadResponse
from latchkey.infrastructure.agents.openai.errors import refused, unanswered
from latchkey.infrastructure.agents.openai.retries import pause_s
from latchkey.infrastructure.agents.openai.sse import EventStreamParser

_TIMEOUT = httpx2.Timeout(30, read=300, connect=10)
_EVENT_STREAM = "text/event-stream"


class ModelClient:
    """One address of it. Follows no redirect, which could lead a conversation elsewhere.

    What OpenAI's client does here beside, for any of its requests, was 0.2 ms of each.
    """

    def __init__(
        self, path: str, api_key: str, base_url: str | None, transport: httpx2.AsyncBaseTransport | None
    ) -> None:
        self._client = httpx2.AsyncClient(
            transport=transport,
            limits=httpx2.Limits(max_connections=1000, max_keepalive_connections=100),
            follow_redirects=False,
        )
        introduction = AsyncOpenAI(api_key=api_key, base_url=base_url, http_client=self._client)
        self._url = _below(introduction.base_url, path)
        self._headers = _headers(introduction)
        self._extensions = {"timeout": _TIMEOUT.as_dict()}

    async def aclose(self) -> None:
        await self._client.aclose()

    async def answer(self, body: bytes) -> AsyncGenerator[list[bytes], None]:
        """The data of the events of its answer, each time those that came together.

        Raises the `TurnFailed` that says why there is no answer or no more of it. Once it has begun, it is not asked
        for again.
        """
        response = await self._response(body)
        try:
            _check_media_type(response)
            stream = EventStreamParser()
            async for chunk in response.aiter_bytes():
                if events := stream.feed(chunk):
                    yield events
            if events := stream.end():
                yield events
        except httpx2.TimeoutException as error:
            raise unanswered(error) from error
        except httpx2.RequestError as error:
            raise ModelBadResponse("The connection broke in the middle of the model's answer.") from error
        finally:
            await response.aclose()

    async def _response(self, body: bytes) -> httpx2.Response:
        retries = 0
        while True:
            try:
                response = await self._client.send(self._request(body), stream=True)
            except httpx2.RequestError as error:
                pause, failure = pause_s(None, retries), unanswered(error)
            else:
                if response.is_success:
                    return response
                pause, failure = pause_s(response, retries), refused(response.status_code, response.headers)
                await response.aclose()
            if pause is None:
                raise failure
            await asyncio.sleep(pause)
            retries += 1

    def _request(self, body: bytes) -> httpx2.Request:
        return httpx2.Request("POST", self._url, headers=self._headers, content=body, extensions=self._extensions)


def _below(base: httpx2.URL, path: str) -> httpx2.URL:
    folder, mark, query = base.raw_path.partition(b"?")
    return base.copy_with(raw_path=folder.rstrip(b"/") + b"/" + path.encode() + mark + query)


def _headers(introduction: AsyncOpenAI) -> httpx2.Headers:
    """Who asks, as OpenAI's client says it. What it says of this machine beside is nobody's business."""
    said = {**introduction.default_headers, **introduction.auth_headers}
    own = {
        name: value
        for name, value in said.items()
        if isinstance(value, str) and not name.lower().startswith("x-stainless-")
    }
    # Not compressed, so that each piece is read as soon as it is sent.
    return httpx2.Headers({**own, "Accept-Encoding": "identity", "User-Agent": "Latchkey"})


def _check_media_type(response: httpx2.Response) -> None:
    media_type = response.headers.get("content-type", "nothing").partition(";")[0].strip().lower()
    if media_type != _EVENT_STREAM:
        raise ModelBadResponse(
            f"The model's server answered with {media_type} instead of an event stream: check its base URL."
        )
