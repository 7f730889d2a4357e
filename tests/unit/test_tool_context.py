"""The context of a tool outside a transaction: its deadline, and its HTTP client with redirects and errors."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx2
import pytest

from latchkey.domain.credentials import Scope, UserId
from latchkey.domain.errors import Unavailable
from latchkey.infrastructure.tool_context import HttpToolContexts, RedirectRefused, ToolContext
from latchkey.testing.processes import free_port
from tests.support.socket_server import serve_on_socket

SCOPE = Scope(UserId("me"))


def a_deadline(seconds: float = 30) -> datetime:
    return datetime.now(UTC) + timedelta(seconds=seconds)


class OtherService:
    """An HTTP service that redirects `/moved?to=URL`, never answers `/slow`, and fails at `/broken`."""

    def __init__(self) -> None:
        self.paths: list[str] = []

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        self.paths.append(scope["path"])
        status, headers = 200, []
        if scope["path"] == "/moved":
            status, headers = 307, [(b"location", scope["query_string"].removeprefix(b"to="))]
        elif scope["path"] == "/broken":
            status = 503
        elif scope["path"] == "/slow":
            while (await receive())["type"] != "http.disconnect":
                pass
            return
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": b"here"})


@asynccontextmanager
async def other_service() -> AsyncIterator[tuple[str, OtherService]]:
    service = OtherService()
    async with serve_on_socket(service) as port:
        yield f"http://127.0.0.1:{port}", service


async def test_context_has_deadline_and_remaining_time() -> None:
    deadline = a_deadline(30)
    context = ToolContext(SCOPE, "id", deadline)

    assert context.deadline == deadline
    assert context.deadline.tzinfo is not None
    assert 29 < context.remaining_s <= 30
    assert ToolContext(SCOPE, "id", a_deadline(-1)).remaining_s == 0
    assert (context.user_id, context.call_id, context.scope) == ("me", "id", SCOPE)


async def test_http_client_is_closed_with_its_context() -> None:
    async with other_service() as (url, _), HttpToolContexts().open(SCOPE, "id", a_deadline()) as context:
        client = context.http
        assert (await client.get(url)).text == "here"
        assert context.http is client

    assert client.is_closed


async def test_http_client_is_closed_after_an_exception() -> None:
    clients = []

    async def use_and_fail() -> None:
        async with HttpToolContexts().open(SCOPE, "id", a_deadline()) as context:
            clients.append(context.http)
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await use_and_fail()

    assert [client.is_closed for client in clients] == [True]


async def test_http_client_timeout_is_time_until_deadline() -> None:
    async with other_service() as (url, _):
        with pytest.raises(Unavailable) as caught:
            async with HttpToolContexts().open(SCOPE, "id", a_deadline(0.1)) as context, asyncio.timeout(20):
                await context.http.get(f"{url}/slow")

    assert isinstance(caught.value.__cause__, httpx2.TimeoutException)


async def test_redirect_within_host_is_followed() -> None:
    async with other_service() as (url, service), ToolContext(SCOPE, "id", a_deadline()) as context:
        response = await context.http.get(f"{url}/moved?to=/here")

    assert (response.status_code, service.paths) == (200, ["/moved", "/here"])


@pytest.mark.parametrize("target", ["http://localhost:{port}/here", "http://127.0.0.1:{other}/here", "//[::1]:{port}/"])
async def test_redirect_to_another_host_is_refused(target: str) -> None:
    """The tool has chosen one service: that service cannot make it call another one, such as one on this machine."""
    async with other_service() as (url, service), other_service() as (elsewhere, stranger):
        location = target.format(port=httpx2.URL(url).port, other=httpx2.URL(elsewhere).port)
        async with ToolContext(SCOPE, "id", a_deadline()) as context:
            with pytest.raises(RedirectRefused, match="redirects to http://"):
                await context.http.get(f"{url}/moved?to={location}")

    assert (service.paths, stranger.paths) == (["/moved"], [])


@pytest.mark.parametrize("path", ["unreachable", "/broken", "/moved?to=http://localhost/"])
async def test_http_error_of_tool_is_unavailable_without_its_address(path: str) -> None:
    async with other_service() as (url, _):
        address = f"http://127.0.0.1:{free_port()}" if path == "unreachable" else f"{url}{path}"
        with pytest.raises(Unavailable) as caught:
            async with HttpToolContexts().open(SCOPE, "id", a_deadline()) as context:
                (await context.http.get(address)).raise_for_status()

    assert isinstance(caught.value.__cause__, httpx2.HTTPError)
    assert "127.0.0.1" not in caught.value.detail
