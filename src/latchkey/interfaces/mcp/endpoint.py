"""`/mcp`: the MCP server over Streamable HTTP, stateless, for both eras of the protocol."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from mcp import MCPError
from mcp.server.lowlevel import Server
from mcp.server.streamable_http_manager import StreamableHTTPSessionManager

from latchkey.application.application import Application
from latchkey.domain.errors import Failure, Invalid, Unauthenticated, Unavailable
from latchkey.domain.ports import Identity
from latchkey.domain.scope import TokenSecret
from latchkey.interfaces.bearer import credential_of, is_bearer
from latchkey.interfaces.mcp.body import MAX_BYTES, Message, Receive, check_json, read_body, replaying
from latchkey.interfaces.mcp.caller import CALLER, Caller
from latchkey.interfaces.mcp.containment import contained
from latchkey.interfaces.mcp.refusals import Send, challenge, error_body, refuse, respond

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
        application: Application,
        identity: Identity,
        resource: str,
        metadata_url: str | None = None,
    ) -> None:
        self._server = server
        self._application = application
        self._identity = identity
        self._resource = resource
        self._metadata_url = metadata_url
        self._sessions: StreamableHTTPSessionManager | None = None

    @asynccontextmanager
    async def run(self) -> AsyncIterator[None]:
        # Answered in JSON, not as an event stream: a client that leaves does not stop its call.
        self._sessions = StreamableHTTPSessionManager(
            self._server, stateless=True, json_response=True, max_request_body_size=MAX_BYTES
        )
        async with self._sessions.run():
            yield

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["method"] != "POST":
            await respond(send, 405, b"", (b"allow", b"POST"))
            return
        given = b", ".join(value for name, value in scope["headers"] if name == b"authorization").decode("latin-1")
        try:
            caller = Caller.holding(await credential_of(given or None, self._identity, self._resource))
        except (Unauthenticated, Unavailable) as failure:
            await self._refuse(send, failure, given=is_bearer(given))
            return
        if await self._admits(caller, scope, send):
            await self._answer(caller, scope, receive, self._vouching(caller, send))
            if caller.vouched and isinstance(caller.credential, TokenSecret):
                self._application.count(caller.credential)

    async def _admits(self, caller: Caller, scope: Scope, send: Send) -> bool:
        """Whether the request may be read. A large one under a token is not, before the token is known to be one."""
        try:
            await contained(caller, self._application.admit(caller.credential))
            if not caller.vouched and not _is_small(scope):
                await contained(caller, caller.scope(self._application))
        except MCPError as error:
            if caller.refused is None:
                await respond(send, 500, error_body(error.error.code, error.error.message))
            else:
                await self._refuse(send, caller.refused, given=True)
            return False
        return True

    async def _answer(self, caller: Caller, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            body = await read_body(receive)
            if body is None:
                return
            check_json(body)
        except Invalid as failure:
            await refuse(send, failure)
            return
        if self._sessions is None:
            raise RuntimeError("Enter `run()` before serving.")
        token = CALLER.set(caller)
        try:
            await self._sessions.handle_request(scope, replaying(body, receive), send)
        finally:
            CALLER.reset(token)

    def _vouching(self, caller: Caller, send: Send) -> Send:
        """The way back to a client: an answer leaves on it only if the credential was found alive, once a request."""
        refused = False

        async def reply(message: Message) -> None:
            nonlocal refused
            if message["type"] == "http.response.start":
                failure = await self._failure_of(caller)
                refused = failure is not None
                if failure is not None:
                    await self._refuse(send, failure, given=True)
            if not refused:
                await send(message)

        return reply

    async def _failure_of(self, caller: Caller) -> Failure | None:
        """What a handler found wrong. What no handler had reason to look up is looked up now."""
        if not caller.vouched and caller.refused is None:
            try:
                await contained(caller, caller.scope(self._application))
            except MCPError:
                if caller.refused is None:
                    raise
        return caller.refused

    async def _refuse(self, send: Send, failure: Failure, *, given: bool) -> None:
        headers = []
        if isinstance(failure, Unauthenticated):
            headers.append(challenge(failure, self._metadata_url, given=given))
        await refuse(send, failure, *headers)


def _is_small(scope: Scope) -> bool:
    """By its own word, which the server holds it to. In chunks, nobody knows."""
    for name, value in scope["headers"]:
        if name == b"content-length":
            return value.isdigit() and int(value) <= _SMALL_BYTES
    return False
