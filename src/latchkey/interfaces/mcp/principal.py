"""What all MCP requests share: the principal, the error boundary of handlers, and the in-process client."""

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable
from contextlib import asynccontextmanager
from contextvars import ContextVar
from copy import copy
from typing import Any, TypeVar

from mcp import Client, MCPError
from mcp.server.context import CallNext, HandlerResult, ServerRequestContext
from mcp.server.lowlevel import Server
from mcp_types import INTERNAL_ERROR, INVALID_PARAMS, INVALID_REQUEST
from mcp_types.version import LATEST_MODERN_VERSION
from msgspec import Struct

from latchkey.application.dispatcher import Dispatcher
from latchkey.application.tool_calls import CALL_LIMIT_S
from latchkey.domain.credentials import Credential, Owner, Scope, TokenSecret
from latchkey.domain.errors import Exhausted, Failure, Unauthenticated, Unavailable

T = TypeVar("T")
Result = dict[str, Any]
Context = ServerRequestContext[Any, Any]

HANDLED_METHODS = ("tools/list", "tools/call", "resources/list", "resources/templates/list", "resources/read")
"""The methods with handlers of this package. Each returns a result only after it has verified the credential."""

_log = logging.getLogger("latchkey.mcp")


class HandlerError(MCPError):
    """The error response of a handler that has verified the credential. `failure` is its cause, for the log."""

    def __init__(self, failure: Failure, message: str, data: Any = None) -> None:
        super().__init__(INVALID_PARAMS, message, data)
        self.failure = failure


class RequestFailure(MCPError):
    """The whole request failed: its credential is refused, a limit is reached, or the database is unavailable.

    Over HTTP, `failure` determines the status. A refused credential has the JSON-RPC code -32600, which clients do
    not retry.
    """

    def __init__(self, failure: Failure) -> None:
        code = INVALID_REQUEST if isinstance(failure, Unauthenticated) else INTERNAL_ERROR
        super().__init__(code, f"{failure.code}: {failure.detail}")
        self.failure = failure


async def error_boundary(operation: Awaitable[T], extra_s: float = 0.0) -> T:
    """Await the operation, for at most `CALL_LIMIT_S` and the extra time of a tool outside a transaction.

    Raises only `MCPError`, because the SDK sends the texts of other exceptions to clients. Raises `RequestFailure` if
    the whole request failed.
    """
    try:
        async with asyncio.timeout(CALL_LIMIT_S + extra_s):
            return await operation
    except MCPError:
        raise
    except (Unauthenticated, Exhausted, Unavailable) as failure:
        raise RequestFailure(failure) from failure
    except TimeoutError as error:
        raise RequestFailure(Unavailable("The request took too long: try again.")) from error
    except Exception as error:
        _log.exception("mcp_handler_failed")
        raise MCPError(INTERNAL_ERROR, "Internal error") from error


def complete(**result: Any) -> Result:
    """Return a result that is complete, as the current protocol marks it; the SDK removes the mark for older ones."""
    return {"resultType": "complete", **result}


class Principal(Struct, frozen=True):
    """The credential of a request, and its scope if the credential has already been verified."""

    credential: Credential
    scope: Scope | None = None

    @classmethod
    def of(cls, credential: Credential) -> "Principal":
        """Create a principal. An `Owner` has been verified by its JWT, a context token only the database can verify."""
        return cls(credential, Scope(credential.user_id) if isinstance(credential, Owner) else None)

    async def verify(self, dispatcher: Dispatcher) -> Scope:
        """Return the scope. Raises `Unauthenticated` for an invalid context token, and `Unavailable`."""
        if self.scope is not None:
            return self.scope
        return await dispatcher.resolve_scope(self.credential)


PRINCIPAL: ContextVar[Principal] = ContextVar("latchkey_mcp_principal")


def with_principal(server: Server[Any], principal: Principal) -> Server[Any]:
    """Return a view of the server for a connection whose requests all come from this principal."""

    async def set_principal(ctx: ServerRequestContext[Any, Any], call_next: CallNext) -> HandlerResult:
        token = PRINCIPAL.set(principal)
        try:
            return await call_next(ctx)
        finally:
            PRINCIPAL.reset(token)

    view = copy(server)
    view.middleware = [set_principal, *server.middleware]
    return view


@asynccontextmanager
async def connect(server: Server[Any], secret: TokenSecret, scope: Scope | None = None) -> AsyncIterator[Client]:
    """Open a client with this context token. If its `scope` is given, `tools/list` reads nothing from the database.

    Each call verifies the token again. The client's methods raise `MCPError`: with code -32600 (invalid request) if
    the token is invalid, and -32603 (internal error) if the database is unavailable.
    """
    view = with_principal(server, Principal(secret, scope))
    async with Client(view, mode=LATEST_MODERN_VERSION, cache=None) as client:
        yield client
