"""The served application inside the test process: the ASGI application of `latchkey serve` and HTTP clients of it."""

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

# Imported before the first turn: some tests measure how long a turn takes, and the import is not part of that.
import latchkey.infrastructure.agents.openai.agent  # noqa: F401
from latchkey.bootstrap.composition import create_asgi
from latchkey.bootstrap.identity import create_signer
from latchkey.config import Settings
from latchkey.domain.credentials import UserId
from latchkey.testing.service import run_lifespan
from tests.fakes.model_server import ModelServer
from tests.polling import TIMEOUT_S
from tests.support.published_schema import check_response
from tests.support.socket_server import serve_on_socket

AUTH_SECRET = "a secret of thirty-two bytes or more"
HOST, PORT = "127.0.0.1", 8000
BASE_URL = f"http://{HOST}:{PORT}"

_user_numbers: Iterator[int] = count(1)


def settings_for(database_url: str, **variables: str) -> Settings:
    """Settings with a shared-secret identity and the rehearsal agent; `variables` override them."""
    defaults = {"LATCHKEY_AUTH_SECRET": AUTH_SECRET, "LATCHKEY_AGENT": "rehearsal"}
    return Settings.read({"LATCHKEY_DATABASE_URL": database_url, **defaults, **variables})


def model_variables(model: ModelServer) -> dict[str, str]:
    """Environment variables of a service whose agent calls that model server."""
    return {"LATCHKEY_AGENT": "openai", "LATCHKEY_MODEL": "fake", "OPENAI_BASE_URL": model.base_url}


@dataclass
class ApiUser:
    """A user with a bearer token and an HTTP client. Paths are relative to `/api/{user_id}/`."""

    user_id: str
    token: str
    client: httpx2.AsyncClient

    def path(self, relative: str) -> str:
        return f"/api/{quote(self.user_id, safe='')}/{relative}"

    async def get(self, path: str, **options: Any) -> httpx2.Response:
        return await self.request("GET", path, **options)

    async def post(self, path: str, **options: Any) -> httpx2.Response:
        return await self.request("POST", path, **options)

    async def put(self, path: str, **options: Any) -> httpx2.Response:
        return await self.request("PUT", path, **options)

    async def patch(self, path: str, **options: Any) -> httpx2.Response:
        return await self.request("PATCH", path, **options)

    async def delete(self, path: str, **options: Any) -> httpx2.Response:
        return await self.request("DELETE", path, **options)

    @asynccontextmanager
    async def stream(self, method: str, path: str, **options: Any) -> AsyncIterator[httpx2.Response]:
        """A response whose body is read as it arrives."""
        headers = {"authorization": f"Bearer {self.token}", **options.pop("headers", {})}
        async with self.client.stream(method, self.path(path), headers=headers, **options) as response:
            yield response

    async def create(self, collection: str, **body: Any) -> dict[str, Any]:
        """Create an entity and return it as the response shows it."""
        response = await self.post(collection, json=body)
        assert response.status_code == 201, response.text
        entity: dict[str, Any] = response.json()
        return entity

    async def chat(self, message: str, **body: Any) -> dict[str, Any]:
        """Send a message and return the answer."""
        response = await self.post("chat", json={"message": message, **body})
        assert response.status_code == 200, response.text
        answer: dict[str, Any] = response.json()
        return answer

    async def list_items(self, listing: str, **params: Any) -> list[dict[str, Any]]:
        """The items of the first page."""
        response = await self.get(listing, params=params)
        assert response.status_code == 200, response.text
        items: list[dict[str, Any]] = response.json()["items"]
        return items

    async def request(self, method: str, path: str, **options: Any) -> httpx2.Response:
        headers = {"authorization": f"Bearer {self.token}", **options.pop("headers", {})}
        return await self.client.request(method, self.path(path), headers=headers, **options)


@dataclass
class Service:
    """A replica that has started."""

    asgi: Any
    settings: Settings
    client: httpx2.AsyncClient

    def user(self, user_id: str | None = None) -> ApiUser:
        """A user with a signed token; without `user_id` a new user, whom the database does not know yet."""
        user_id = user_id or f"user-{next(_user_numbers)}"
        token = create_signer(self.settings).sign(UserId(user_id), timedelta(hours=1))
        return ApiUser(user_id, token, self.client)

    @asynccontextmanager
    async def mcp_client(self, bearer: str) -> AsyncIterator[mcp.Client]:
        """An MCP client that sends that credential."""
        transport = httpx2.ASGITransport(app=self.asgi)
        authorization = {"authorization": f"Bearer {bearer}"}
        async with (
            httpx2.AsyncClient(transport=transport, headers=authorization) as http,
            mcp.Client(streamable_http_client(f"{BASE_URL}/mcp", http_client=http)) as client,
        ):
            yield client


@asynccontextmanager
async def run_service(
    settings: Settings, *, port: int = PORT, on_socket: bool = False, validate: bool = True
) -> AsyncIterator[Service]:
    """Start a replica, yield it, and stop it.

    With `on_socket` its clients reach it through a server on a socket, otherwise through ASGI calls.
    With `validate` each response to its clients is checked against docs/openapi.json.
    """
    asgi: Any = create_asgi(settings, HOST, port)
    hooks = {"response": [check_response]} if validate else {}
    transport = httpx2.ASGITransport(app=asgi)
    base_url = f"http://{HOST}:{port}"
    async with (
        run_lifespan(asgi),
        httpx2.AsyncClient(transport=transport, base_url=base_url, event_hooks=hooks) as client,
    ):
        service = Service(asgi, settings, client)
        if not on_socket:
            yield service
            return
        async with over_socket(service) as reached:
            yield reached


@asynccontextmanager
async def over_socket(service: Service) -> AsyncIterator[Service]:
    """The same replica with a client that reaches it through a socket; responses are checked against the schema."""
    async with (
        serve_on_socket(service.asgi) as port,
        httpx2.AsyncClient(
            base_url=f"http://{HOST}:{port}",
            event_hooks={"response": [check_response]},
            timeout=TIMEOUT_S,
            limits=httpx2.Limits(max_connections=None),
        ) as client,
    ):
        yield Service(service.asgi, service.settings, client)
