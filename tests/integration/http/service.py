"""The whole service inside the test: the application that `latchkey serve` runs, behind a real HTTP client."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import timedelta
from itertools import count
from typing import Any
from urllib.parse import quote

import httpx2
import mcp
from mcp.client.streamable_http import streamable_http_client

# Loaded beforehand, as after the first turn of a process: how long turns may take is part of some stories.
import latchkey.infrastructure.agents.openai.agent  # noqa: F401
from latchkey.bootstrap.composition import create_asgi
from latchkey.bootstrap.identity import create_signer
from latchkey.config import Settings
from latchkey.domain.credentials import UserId
from tests.fakes.model_server import ModelServer
from tests.integration.http.published import check

SECRET = "a secret of thirty-two bytes or more"
HOST, PORT = "127.0.0.1", 8000
BASE_URL = f"http://{HOST}:{PORT}"

_numbers: Iterator[int] = count(1)


def settings_for(database_url: str, **variables: str) -> Settings:
    """Signed by the shared secret and answered by the rehearsal agent, unless the variables say otherwise."""
    given = {"LATCHKEY_AUTH_SECRET": SECRET, "LATCHKEY_AGENT": "rehearsal", **variables}
    return Settings.read({"LATCHKEY_DATABASE_URL": database_url, **given})


def asking(model: ModelServer) -> dict[str, str]:
    """The variables of a service that asks that model."""
    return {"LATCHKEY_AGENT": "openai", "LATCHKEY_MODEL": "fake", "OPENAI_BASE_URL": model.base_url}


@dataclass
class Person:
    """A user with a client of their own. Paths are below `/api/{user_id}`."""

    user_id: str
    token: str
    client: httpx2.AsyncClient

    def path(self, below: str) -> str:
        return f"/api/{quote(self.user_id, safe='')}/{below}"

    async def get(self, path: str, **given: Any) -> httpx2.Response:
        return await self._request("GET", path, **given)

    async def post(self, path: str, **given: Any) -> httpx2.Response:
        return await self._request("POST", path, **given)

    async def put(self, path: str, **given: Any) -> httpx2.Response:
        return await self._request("PUT", path, **given)

    async def patch(self, path: str, **given: Any) -> httpx2.Response:
        return await self._request("PATCH", path, **given)

    async def delete(self, path: str, **given: Any) -> httpx2.Response:
        return await self._request("DELETE", path, **given)

    @asynccontextmanager
    async def stream(self, method: str, path: str, **given: Any) -> AsyncIterator[httpx2.Response]:
        """An answer whose body is read as it comes."""
        headers = {"authorization": f"Bearer {self.token}", **given.pop("headers", {})}
        async with self.client.stream(method, self.path(path), headers=headers, **given) as response:
            yield response

    async def made(self, collection: str, **body: Any) -> dict[str, Any]:
        """A new one, as it was answered."""
        response = await self.post(collection, json=body)
        assert response.status_code == 201, response.text
        found: dict[str, Any] = response.json()
        return found

    async def said(self, message: str, **body: Any) -> dict[str, Any]:
        """The answer to a message."""
        response = await self.post("chat", json={"message": message, **body})
        assert response.status_code == 200, response.text
        found: dict[str, Any] = response.json()
        return found

    async def items(self, listing: str, **params: Any) -> list[dict[str, Any]]:
        """What is on the first page."""
        response = await self.get(listing, params=params)
        assert response.status_code == 200, response.text
        found: list[dict[str, Any]] = response.json()["items"]
        return found

    async def _request(self, method: str, path: str, **given: Any) -> httpx2.Response:
        headers = {"authorization": f"Bearer {self.token}", **given.pop("headers", {})}
        return await self.client.request(method, self.path(path), headers=headers, **given)


@dataclass
class Service:
    """One replica that has started. Every answer that its clients get is held against the published schema."""

    asgi: Any
    settings: Settings
    client: httpx2.AsyncClient

    def person(self, user_id: str | None = None) -> Person:
        """Somebody; nobody has met them before, unless they are named."""
        user_id = user_id or f"user-{next(_numbers)}"
        token = create_signer(self.settings).sign(UserId(user_id), timedelta(hours=1))
        return Person(user_id, token, self.client)

    @asynccontextmanager
    async def mcp(self, bearer: str) -> AsyncIterator[mcp.Client]:
        """An MCP client that holds that credential."""
        transport = httpx2.ASGITransport(app=self.asgi)
        authorization = {"authorization": f"Bearer {bearer}"}
        async with (
            httpx2.AsyncClient(transport=transport, headers=authorization) as http,
            mcp.Client(streamable_http_client(f"{BASE_URL}/mcp", http_client=http)) as client,
        ):
            yield client


@asynccontextmanager
async def serving(settings: Settings) -> AsyncIterator[Service]:
    """A replica, from its start until it has stopped."""
    asgi: Any = create_asgi(settings, HOST, PORT)
    transport = httpx2.ASGITransport(app=asgi)
    hooks = {"response": [check]}
    async with alive(asgi), httpx2.AsyncClient(transport=transport, base_url=BASE_URL, event_hooks=hooks) as client:
        yield Service(asgi, settings, client)


@asynccontextmanager
async def alive(asgi: Any) -> AsyncIterator[None]:
    """Between its start and its end, as a server tells an application about them (ASGI, lifespan)."""
    told: asyncio.Queue[Any] = asyncio.Queue()
    heard: asyncio.Queue[Any] = asyncio.Queue()
    scope: Any = {"type": "lifespan", "asgi": {"version": "3.0", "spec_version": "2.0"}, "state": {}}
    running = asyncio.create_task(asgi(scope, told.get, heard.put))
    await told.put({"type": "lifespan.startup"})
    started = await heard.get()
    assert started["type"] == "lifespan.startup.complete", started
    try:
        yield
    finally:
        await told.put({"type": "lifespan.shutdown"})
        stopped = await heard.get()
        await running
    assert stopped["type"] == "lifespan.shutdown.complete", stopped
