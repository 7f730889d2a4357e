"""MCP over standard input and output, for one context token."""

import asyncio
from contextlib import suppress
from typing import Any

import anyio
from mcp.server.lowlevel import Server
from mcp.server.stdio import stdio_server
from mcp.shared.message import SessionMessage
from mcp_types import JSONRPCError, JSONRPCRequest, JSONRPCResponse

from latchkey.domain.credentials import TokenSecret
from latchkey.interfaces.mcp.principal import Principal, with_principal

Incoming = SessionMessage | Exception


async def serve_stdio(server: Server[Any], secret: TokenSecret, longest_call_s: float) -> None:
    """Serve until standard input ends and all requests have been answered. Every call verifies the token again.

    `longest_call_s` is how long a call may take.

    Only protocol messages are written to standard output; `print` goes to standard error meanwhile.
    """
    view, pending = with_principal(server, Principal.of(secret)), PendingRequests()
    put_request, requests = anyio.create_memory_object_stream[Incoming]()
    responses, put_response = anyio.create_memory_object_stream[SessionMessage]()

    async def forward_requests() -> None:
        async with put_request:
            async for incoming in read:
                pending.update(incoming)
                await put_request.send(incoming)
            # At the end of the input the SDK cancels running calls; a client that pipes its calls in wants the results.
            await pending.wait_empty(longest_call_s)

    async def forward_responses() -> None:
        async with put_response:
            async for response in put_response:
                await write.send(response)
                pending.update(response)

    async with stdio_server() as (read, write), write, anyio.create_task_group() as tasks:
        tasks.start_soon(forward_requests)
        tasks.start_soon(forward_responses)
        await view.run(requests, responses, view.create_initialization_options())


class PendingRequests:
    """The ids of the requests without a response."""

    def __init__(self) -> None:
        self._ids: set[str | int | None] = set()
        self._removed = asyncio.Event()

    def update(self, incoming: Incoming) -> None:
        """Add the id of a request, or remove the id of a response."""
        message = incoming.message if isinstance(incoming, SessionMessage) else None
        if isinstance(message, JSONRPCRequest):
            self._ids.add(message.id)
        elif isinstance(message, JSONRPCResponse | JSONRPCError):
            self._ids.discard(message.id)
            self._removed.set()

    async def wait_empty(self, timeout_s: float) -> None:
        """Wait until no request is pending, at most for the time limit of a call: a cancelled call has no response."""
        with suppress(TimeoutError):
            async with asyncio.timeout(timeout_s):
                while self._ids:
                    self._removed.clear()
                    await self._removed.wait()
