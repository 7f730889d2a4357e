"""An MCP endpoint over Streamable HTTP on a free port. It accepts any context token."""

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import uvicorn
from mcp.server.streamable_http_manager import StreamableHTTPSessionManager

from latchkey.testing.processes import free_port
from tests.fakes.tool_server import ToolServer

MAX_BYTES = 8 * 1024 * 1024


@dataclass
class ToolEndpoint:
    """Records the headers of each request. Answers 401 if `refuses` is set or the request has no context token."""

    tools: ToolServer
    url: str
    refuses: bool = False
    requests: list[dict[str, str]] = field(default_factory=list)

    @property
    def authorizations(self) -> set[str]:
        return {request.get("authorization", "") for request in self.requests}

    async def serve(self, server: uvicorn.Server) -> None:
        """The sessions must be opened and closed by one task."""
        sessions = StreamableHTTPSessionManager(
            self.tools.server(), stateless=True, json_response=True, max_request_body_size=MAX_BYTES
        )
        async with sessions.run():
            self._sessions = sessions
            await server.serve()

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        headers = {name.decode(): value.decode() for name, value in scope["headers"]}
        self.requests.append(headers)
        if scope["method"] != "POST":
            await _refuse(send, 405)
        elif self.refuses or not headers.get("authorization", "").startswith("Bearer lk_"):
            await _refuse(send, 401, (b"www-authenticate", b"Bearer"))
        else:
            await self._answer(scope, receive, send)

    async def _answer(self, scope: Any, receive: Any, send: Any) -> None:
        """Stops if the client disconnects, or if `tools.dropped` is set."""
        body = await _read(receive)
        tasks = [
            asyncio.create_task(self._sessions.handle_request(scope, _replaying(body), send)),
            asyncio.create_task(receive()),
            asyncio.create_task(self.tools.dropped.wait()),
        ]
        try:
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)


@asynccontextmanager
async def tool_endpoint(tools: ToolServer) -> AsyncIterator[ToolEndpoint]:
    """Listens on a free port of the loopback interface, in the running event loop."""
    port = free_port()
    endpoint = ToolEndpoint(tools, f"http://127.0.0.1:{port}/mcp")
    server = _Server(uvicorn.Config(endpoint, port=port, lifespan="off", log_level="critical"))
    serving = asyncio.create_task(endpoint.serve(server))
    await server.listening.wait()
    try:
        yield endpoint
    finally:
        server.should_exit = server.force_exit = True
        await serving


class _Server(uvicorn.Server):
    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self.listening = asyncio.Event()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self.listening.set()


async def _read(receive: Any) -> bytes:
    body = b""
    while (message := await receive())["type"] == "http.request":
        body += message["body"]
        if not message.get("more_body"):
            break
    return body


def _replaying(body: bytes) -> Any:
    """A `receive` that returns the body again."""
    messages = [{"type": "http.request", "body": body, "more_body": False}]

    async def replay() -> Any:
        if not messages:
            await asyncio.Event().wait()
        return messages.pop()

    return replay


async def _refuse(send: Any, status: int, *headers: tuple[bytes, bytes]) -> None:
    await send({"type": "http.response.start", "status": status, "headers": [(b"content-length", b"0"), *headers]})
    await send({"type": "http.response.body", "body": b""})
