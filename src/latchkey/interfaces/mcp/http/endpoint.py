"""`/mcp`: the MCP server over Streamable HTTP, stateless, for both eras of the protocol."""

from collections.abc import AsyncIterator, Awaitable
from contextlib import asynccontextmanager
from typing import Any

from mcp import MCPError
from mcp.server.lowlevel import Server

from latchkey.application.dispatcher import Dispatcher
from latchkey.domain.credentials import TokenSecret
from latchkey.domain.errors import Failure, Invalid, Unauthenticated, Unavailable
from latchkey.domain.ports import Identity
from latchkey.interfaces.auth import credential_of, is_bearer
from latchkey.interfaces.mcp.error_boundary import error_boundary
from latchkey.interfaces.mcp.http.body import Receive, read_body, read_json
from latchkey.interfaces.mcp.http.errors import challenge, error_body, refusal_of
from latchkey.interfaces.mcp.http.response import HttpResponse, Send
from latchkey.interfaces.mcp.http.transport import Transport
from latchkey.interfaces.mcp.principal import PRINCIPAL, Principal

Scope = Any

_SMALL_BYTES = 64 * 1024
"""To look a token up before its request is read costs a transaction more, and is worth it for what is larger."""


class McpEndpoint:
    """An ASGI application. Whoever mounts it checks Host and Origin, and holds `run()` open while it serves.

    `resource` is its own address, for which a person's token may be meant; `metadata_url` tells clients where
    they get one.
    """

    def __init__(
        self,
        server: Server[Any],
        dispatcher: Dispatcher,
        identity: Identity,
        resource: str,
        metadata_url: str | None = None,
    ) -> None:
        self._server = server
        self._dispatcher = dispatcher
        self._identity = identity
        self._resource = resource
        self._metadata_url = metadata_url
        self._transport: Transport | None = None

    @asynccontextmanager
    async def run(self) -> AsyncIterator[None]:
        async with self._server.lifespan(self._server) as state:
            self._transport = Transport(self._server, state)
            yield

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["method"] != "POST":
            reply: HttpResponse | None = HttpResponse(405, headers=((b"allow", b"POST"),))
        else:
            reply = await self._answer(scope, receive)
        if reply is not None:
            await reply.send(send)

    async def _answer(self, scope: Scope, receive: Receive) -> HttpResponse | None:
        """None for a client that left before its request was there."""
        given = b", ".join(value for name, value in scope["headers"] if name == b"authorization").decode("latin-1")
        try:
            principal = Principal.holding(await credential_of(given or None, self._identity, self._resource))
        except (Unauthenticated, Unavailable) as failure:
            return self._refusal(failure, given=is_bearer(given))
        refused = await self._admission(principal, scope)
        if refused is not None:
            return refused
        reply = await self._perform(principal, scope, receive)
        if reply is not None:
            reply = await self._vouched(principal, reply)
        if principal.vouched and isinstance(principal.credential, TokenSecret):
            self._dispatcher.consume(principal.credential)
        return reply

    async def _admission(self, principal: Principal, scope: Scope) -> HttpResponse | None:
        """None if the request may be read. A large one is not, before its token is known to be one."""
        refused = await self._trouble(principal, self._dispatcher.acquire(principal.credential))
        if refused is None and not principal.vouched and not _is_small(scope):
            refused = await self._trouble(principal, principal.scope(self._dispatcher))
        return refused

    async def _perform(self, principal: Principal, scope: Scope, receive: Receive) -> HttpResponse | None:
        """A client that leaves once its request is there does not stop its call."""
        if self._transport is None:
            raise RuntimeError("Enter `run()` before serving.")
        try:
            body = await read_body(receive)
            if body is None:
                return None
            message = read_json(body)
        except Invalid as failure:
            return refusal_of(failure)
        token = PRINCIPAL.set(principal)
        try:
            return await self._transport.answer(scope["headers"], message)
        finally:
            PRINCIPAL.reset(token)

    async def _vouched(self, principal: Principal, reply: HttpResponse) -> HttpResponse:
        """The answer, if the credential was found alive, once a request: what no handler looked up, is now."""
        if principal.refused is not None:
            return self._refusal(principal.refused, given=True)
        if principal.vouched:
            return reply
        return await self._trouble(principal, principal.scope(self._dispatcher)) or reply

    async def _trouble(self, principal: Principal, step: Awaitable[object]) -> HttpResponse | None:
        """What to answer if that step fails."""
        try:
            await error_boundary(principal, step)
        except MCPError as error:
            if principal.refused is None:
                return HttpResponse(500, error_body(error.error.code, error.error.message))
            return self._refusal(principal.refused, given=True)
        return None

    def _refusal(self, failure: Failure, *, given: bool) -> HttpResponse:
        if isinstance(failure, Unauthenticated):
            return refusal_of(failure, challenge(failure, self._metadata_url, given=given))
        return refusal_of(failure)


def _is_small(scope: Scope) -> bool:
    """By its own word, which the server holds it to. In chunks, nobody knows."""
    for name, value in scope["headers"]:
        if name == b"content-length":
            return value.isdigit() and int(value) <= _SMALL_BYTES
    return False
