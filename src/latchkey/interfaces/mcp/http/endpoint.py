"""The ASGI application at `/mcp`: authentication, rate limits and bodies around an MCP transport without sessions."""

from collections.abc import AsyncIterator, Iterable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any, Protocol

from mcp import MCPError
from msgspec import Struct
from msgspec.structs import replace

from latchkey.application.dispatcher import Dispatcher
from latchkey.domain.credentials import TokenSecret
from latchkey.domain.errors import Failure, Invalid, Unauthenticated, Unavailable
from latchkey.domain.ports import Identity
from latchkey.interfaces.auth import credential_of, is_bearer
from latchkey.interfaces.mcp.http.body import Receive, read_body, read_json
from latchkey.interfaces.mcp.http.responses import Header, HttpResponse, Send, challenge, error_body, failure_response
from latchkey.interfaces.mcp.principal import PRINCIPAL, Principal, RequestFailure, error_boundary

Scope = Any

_SMALL_BYTES = 64 * 1024
"""The token of a larger request is verified before its body is read, at the cost of one transaction more."""


class TransportResult(Struct, frozen=True):
    """The outcome of one message.

    - `verified`: a handler has verified the credential.
    - `failure`: the whole request failed; the endpoint responds with its HTTP status.
    """

    response: HttpResponse
    verified: bool = False
    failure: Failure | None = None


class Transport(Protocol):
    """Dispatches JSON-RPC messages to the MCP server. The principal of a message is in `PRINCIPAL`."""

    def run(self) -> AbstractAsyncContextManager[None]:
        """Run the transport. Must be entered before messages are handled."""
        ...

    async def handle(self, headers: Iterable[Header], message: Any) -> TransportResult:
        """Handle a message, which is any JSON value."""
        ...


class McpEndpoint:
    """The ASGI application. The application around it checks Host and Origin, and enters `run()` while it serves.

    `resource` is the URL of the endpoint, which the audience of a user token may name. `metadata_url` tells clients
    where to get a token.
    """

    def __init__(
        self,
        transport: Transport,
        dispatcher: Dispatcher,
        identity: Identity,
        resource: str,
        metadata_url: str | None = None,
    ) -> None:
        self._transport = transport
        self._dispatcher = dispatcher
        self._identity = identity
        self._resource = resource
        self._metadata_url = metadata_url

    @asynccontextmanager
    async def run(self) -> AsyncIterator[None]:
        """Run the transport."""
        async with self._transport.run():
            yield

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request. Sets `user` in the scope once the credential is verified, and `failure`, for the log."""
        if scope["method"] != "POST":
            response: HttpResponse | None = HttpResponse(405, headers=((b"allow", b"POST"),))
        else:
            response = await self._respond(scope, receive)
        if response is not None:
            scope["failure"] = response.failure
            await response.send(send)

    async def _respond(self, scope: Scope, receive: Receive) -> HttpResponse | None:
        """None if the client disconnects before its request is complete."""
        # Two headers are joined, as RFC 9110 (5.3) reads them, and are no valid credential.
        header = b", ".join(value for name, value in scope["headers"] if name == b"authorization").decode("latin-1")
        try:
            principal = Principal.of(await credential_of(header or None, self._identity, self._resource))
        except (Unauthenticated, Unavailable) as failure:
            return self._failure_response(failure, has_token=is_bearer(header))
        try:
            return await self._respond_to(principal, scope, receive)
        except RequestFailure as error:
            return self._failure_response(error.failure, has_token=True)
        except MCPError as error:
            return HttpResponse(500, error_body(error.error.code, error.error.message))

    async def _respond_to(self, principal: Principal, scope: Scope, receive: Receive) -> HttpResponse | None:
        """Verify the credential once: before a large body is read, by the handler, or after the message."""
        if principal.scope is not None:
            scope["user"] = principal.scope
        await error_boundary(self._dispatcher.acquire(principal.credential))
        if principal.scope is None and not _is_small(scope):
            principal = await self._verify(principal, scope)
        result = await self._handle(principal, scope, receive)
        if result is None:
            return None
        if result.failure is not None:
            raise RequestFailure(result.failure)
        if principal.scope is None and result.verified:
            self._consume(principal, scope)
        elif principal.scope is None:
            await self._verify(principal, scope)
        return result.response

    async def _verify(self, principal: Principal, scope: Scope) -> Principal:
        verified = replace(principal, scope=await error_boundary(principal.verify(self._dispatcher)))
        self._consume(verified, scope)
        return verified

    def _consume(self, principal: Principal, scope: Scope) -> None:
        """Count the request of a context token, now that the token is known to be valid."""
        scope["user"] = principal.credential
        if isinstance(principal.credential, TokenSecret):
            self._dispatcher.consume(principal.credential)

    async def _handle(self, principal: Principal, scope: Scope, receive: Receive) -> TransportResult | None:
        """None if the client disconnects in its request. A client that disconnects later does not stop its call."""
        try:
            body = await read_body(receive)
            if body is None:
                return None
            message = read_json(body)
        except Invalid as failure:
            return TransportResult(failure_response(failure))
        token = PRINCIPAL.set(principal)
        try:
            return await self._transport.handle(scope["headers"], message)
        finally:
            PRINCIPAL.reset(token)

    def _failure_response(self, failure: Failure, *, has_token: bool) -> HttpResponse:
        if isinstance(failure, Unauthenticated):
            return failure_response(failure, challenge(failure, self._metadata_url, has_token=has_token))
        return failure_response(failure)


def _is_small(scope: Scope) -> bool:
    """Whether the declared length is small. The server enforces it; a chunked body declares none."""
    for name, value in scope["headers"]:
        if name == b"content-length":
            return value.isdigit() and int(value) <= _SMALL_BYTES
    return False
