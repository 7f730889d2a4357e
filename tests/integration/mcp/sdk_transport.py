"""The SDK's own HTTP transport behind `McpEndpoint`, in place of `StatelessTransport`.

The transport tests run over both, so that ours can be dropped when an SDK release breaks it.
"""

import json
from collections.abc import AsyncIterator, Iterable, MutableMapping
from contextlib import asynccontextmanager
from typing import Any

from mcp.server.lowlevel import Server
from mcp.server.streamable_http_manager import StreamableHTTPSessionManager

from latchkey.interfaces.mcp.http.body import MAX_BYTES
from latchkey.interfaces.mcp.http.endpoint import TransportResult
from latchkey.interfaces.mcp.http.responses import Header, HttpResponse

Message = MutableMapping[str, Any]


class SdkTransport:
    """`StreamableHTTPSessionManager` as a `Transport`.

    It never reports that a handler has verified the credential, so the endpoint verifies it after each message.
    """

    def __init__(self, server: Server[Any]) -> None:
        self._server = server
        self._manager: StreamableHTTPSessionManager | None = None

    @asynccontextmanager
    async def run(self) -> AsyncIterator[None]:
        manager = StreamableHTTPSessionManager(
            self._server, stateless=True, json_response=True, max_request_body_size=MAX_BYTES
        )
        async with manager.run():
            self._manager = manager
            yield

    async def handle(self, headers: Iterable[Header], message: Any) -> TransportResult:
        assert self._manager is not None
        body = json.dumps(message).encode()
        fields = [(name, value) for name, value in headers if name != b"content-length"]
        scope = {"type": "http", "method": "POST", "path": "/mcp", "query_string": b"", "headers": fields}
        incoming: list[Message] = [{"type": "http.request", "body": body, "more_body": False}]
        sent: list[Message] = []

        async def receive() -> Message:
            return incoming.pop() if incoming else {"type": "http.disconnect"}

        async def send(part: Message) -> None:
            sent.append(part)

        await self._manager.handle_request(scope, receive, send)
        start, *parts = sent
        return TransportResult(HttpResponse(start["status"], b"".join(part.get("body", b"") for part in parts)))
