"""The served app inside the test process, and users that call it over HTTP and MCP."""

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from datetime import timedelta
from itertools import count
from typing import Any
from urllib.parse import quote

import httpx2
import mcp
from mcp import MCPError
from mcp.client import ClientRequestContext
from mcp.client.streamable_http import streamable_http_client
from mcp_types import ElicitRequestParams, ElicitResult
from msgspec import Struct

from latchkey.bootstrap.composition import create_asgi
from latchkey.bootstrap.identity import create_signer
from latchkey.bootstrap.registry import Registry
from latchkey.config import Settings
from latchkey.domain.credentials import UserId

_HOST, _PORT = "127.0.0.1", 8000
_BASE_URL = f"http://{_HOST}:{_PORT}"
_numbers = count(1)


class ToolResult(Struct, frozen=True):
    """The result of a tool call: its structured content; or the error, `{"code", "detail"}` or the protocol's."""

    content: Any
    is_error: bool


class Service(Struct, frozen=True, eq=False):
    """The served app on one database. `database_url` is the address of the database."""

    asgi: Any
    settings: Settings
    registry: Registry
    client: httpx2.AsyncClient

    @property
    def database_url(self) -> str:
        return self.settings.database_url

    def new_user(self) -> "User":
        """Return a user with a signed token, whom the database does not know yet."""
        user_id = UserId(f"user-{next(_numbers)}")
        return User(self, user_id, create_signer(self.settings).sign(user_id, timedelta(hours=1)))

    async def document(self) -> dict[str, Any]:
        """Return the OpenAPI document."""
        document: dict[str, Any] = (await self.client.get("/schema/openapi.json")).json()
        return document


class User(Struct, frozen=True, eq=False):
    """A user with a bearer token. Paths are relative to `/api/{user_id}/`."""

    service: Service
    user_id: str
    bearer: str

    def path(self, relative: str) -> str:
        """Return the path of one of the user's resources."""
        return f"/api/{quote(self.user_id, safe='')}/{relative}"

    async def request(self, method: str, path: str, **options: Any) -> httpx2.Response:
        """Send a request with the user's JWT; `options` are those of httpx2."""
        headers = {"authorization": f"Bearer {self.bearer}", **options.pop("headers", {})}
        return await self.service.client.request(method, self.path(path), headers=headers, **options)

    async def get(self, path: str, /, **params: Any) -> Any:
        """Return the JSON of a resource; `params` are added to the query. Raises `AssertionError` unless it is 200."""
        options = {"params": params} if params else {}
        return _json(await self.request("GET", path, **options), httpx2.codes.OK)

    async def post(self, path: str, body: Any) -> Any:
        """Create a resource and return its JSON. Raises `AssertionError` for any status but 200 and 201."""
        return _json(await self.request("POST", path, json=body), httpx2.codes.OK, httpx2.codes.CREATED)

    async def delete(self, path: str) -> None:
        """Delete a resource. Raises `AssertionError` for any status but 204."""
        _json(await self.request("DELETE", path), httpx2.codes.NO_CONTENT)

    async def chat(self, message: str, **body: Any) -> Any:
        """Send a message, and return the answer with the tool calls of its turn."""
        return await self.post("chat", {"message": message, **body})

    async def with_grants(self, *grants: str) -> "User":
        """Return the same user with a context token that has only these grants. It opens MCP and no REST."""
        token = await self.post("context-tokens", {"grants": list(grants)})
        return User(self.service, self.user_id, token["token"])

    async def list_tools(self) -> list[str]:
        """Return the names of the tools that the credential grants."""
        async with self._mcp_client() as client:
            return [tool.name for tool in (await client.list_tools()).tools]

    async def call_tool(self, tool: str, /, **arguments: Any) -> ToolResult:
        """Call a tool over MCP with these arguments. If the tool asks first, the user approves the call."""
        return await self.call_tool_once(tool, None, arguments)

    async def call_tool_once(self, tool: str, call_id: str | None, arguments: Mapping[str, Any]) -> ToolResult:
        """Call a tool over MCP. A `call_id` makes repetitions of the call one call."""
        meta: Any = {"latchkey/callId": call_id} if call_id else None
        async with self._mcp_client() as client:
            try:
                result = await client.call_tool(tool, dict(arguments), meta=meta)
            except MCPError as error:
                return ToolResult({"code": error.code, "detail": error.message}, is_error=True)
        if result.is_error:
            return ToolResult("".join(getattr(part, "text", "") for part in result.content), is_error=True)
        return ToolResult(result.structured_content, is_error=False)

    @asynccontextmanager
    async def _mcp_client(self) -> AsyncIterator[mcp.Client]:
        transport = httpx2.ASGITransport(app=self.service.asgi)
        headers = {"authorization": f"Bearer {self.bearer}"}
        async with (
            httpx2.AsyncClient(transport=transport, headers=headers) as http,
            mcp.Client(
                streamable_http_client(f"{_BASE_URL}/mcp", http_client=http), elicitation_callback=_approve
            ) as client,
        ):
            yield client


async def _approve(context: ClientRequestContext, params: ElicitRequestParams) -> ElicitResult:  # noqa: ARG001
    return ElicitResult(action="accept", content={"approve": True})


@asynccontextmanager
async def serve(settings: Settings) -> AsyncIterator[Service]:
    """Serve the app of the settings, without a socket."""
    registry = Registry.read(settings)
    asgi: Any = create_asgi(settings, _HOST, _PORT, registry)
    async with (
        run_lifespan(asgi),
        httpx2.AsyncClient(transport=httpx2.ASGITransport(app=asgi), base_url=_BASE_URL) as client,
    ):
        yield Service(asgi, settings, registry, client)


@asynccontextmanager
async def run_lifespan(asgi: Any) -> AsyncIterator[None]:
    """Send the application the lifespan events of a server (ASGI, lifespan protocol)."""
    to_app: asyncio.Queue[Any] = asyncio.Queue()
    from_app: asyncio.Queue[Any] = asyncio.Queue()
    scope = {"type": "lifespan", "asgi": {"version": "3.0", "spec_version": "2.0"}, "state": {}}
    running = asyncio.create_task(asgi(scope, to_app.get, from_app.put))
    await to_app.put({"type": "lifespan.startup"})
    started = await from_app.get()
    if started["type"] != "lifespan.startup.complete":
        raise RuntimeError(f"The app did not start: {started}")
    try:
        yield
    finally:
        await to_app.put({"type": "lifespan.shutdown"})
        await from_app.get()
        await running


def _json(response: httpx2.Response, *expected: int) -> Any:
    if response.status_code not in expected:
        raise AssertionError(
            f"{response.request.method} {response.request.url}: {response.status_code}, {response.text}"
        )
    return response.json() if response.content else None
