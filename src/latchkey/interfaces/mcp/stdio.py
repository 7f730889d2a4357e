"""MCP over standard input and output, for one context token."""

import asyncio
from contextlib import suppress
from functools import partial
from typing import Any

import anyio
from mcp.server.lowlevel import Server
from mcp.server.stdio import stdio_server
from mcp.shared.message import SessionMessage
from mcp_types import JSONRPCError, JSONRPCRequest, JSONRPCResponse

from latchkey.domain.credentials import TokenSecret
from latchkey.interfaces.mcp import error_boundary as containment
from latchkey.interfaces.mcp.principal import Principal, with_principal

Incoming = SessionMessage | Exception


async def serve_stdio(server: Server[Any], secret: TokenSecret) -> None:
    """Serve until standard input ends and all that came on it is answered. Every call resolves the token anew.

    Nothing but the protocol reaches standard output meanwhile: what anybody prints goes to standard error.
    """
    view, unanswered = with_principal(server, partial(Principal.holding, secret)), Unanswered()
    put_request, requests = anyio.create_memory_object_stream[Incoming]()
    answers, answered = anyio.create_memory_object_stream[SessionMessage]()

    async def read_on() -> None:
        async with put_request:
            async for incoming in read:
                unanswered.note(incoming)
                await put_request.send(incoming)
            # The SDK gives up what is still running when the input ends; a client that pipes its calls in wants them.
            await unanswered.none()

    async def write_on() -> None:
        async with answered:
            async for answer in answered:
                await write.send(answer)
                unanswered.note(answer)

    async with stdio_server() as (read, write), write, anyio.create_task_group() as pumps:
        pumps.start_soon(read_on)
        pumps.start_soon(write_on)
        await view.run(requests, answers, view.create_initialization_options())


class Unanswered:
    """The requests that have no answer yet."""

    def __init__(self) -> None:
        self._ids: set[str | int | None] = set()
        self._fewer = asyncio.Event()

    def note(self, seen: Incoming) -> None:
        message = seen.message if isinstance(seen, SessionMessage) else None
        if isinstance(message, JSONRPCRequest):
            self._ids.add(message.id)
        elif isinstance(message, JSONRPCResponse | JSONRPCError):
            self._ids.discard(message.id)
            self._fewer.set()

    async def none(self) -> None:
        """Wait until there are none, or until a call may not last any longer: one that was cancelled gets no answer."""
        with suppress(TimeoutError):
            async with asyncio.timeout(containment.CALL_LIMIT_S):
                while self._ids:
                    self._fewer.clear()
                    await self._fewer.wait()
