"""What the request handlers share: methods, context and result types, errors, and the error boundary."""

import asyncio
import logging
from collections.abc import Awaitable
from typing import Any, TypeVar

from mcp import MCPError
from mcp.server.context import ServerRequestContext
from mcp_types import INTERNAL_ERROR, INVALID_REQUEST

from latchkey.domain.errors import Exhausted, Failure, Unauthenticated, Unavailable

T = TypeVar("T")
Result = dict[str, Any]
Context = ServerRequestContext[Any, Any]

HANDLED_METHODS = ("tools/list", "tools/call", "resources/list", "resources/templates/list", "resources/read")
"""The methods with handlers of this package. Each returns a result only after it has verified the credential."""

CALL_LIMIT_S = 30.0

_log = logging.getLogger("latchkey.mcp")


class HandlerError(MCPError):
    """The error response of a handler that has verified the credential."""


class RequestFailure(MCPError):
    """The whole request failed: its credential is refused, a limit is reached, or the database is unavailable.

    Over HTTP, `failure` determines the status. A refused credential has the JSON-RPC code -32600, which clients do
    not retry.
    """

    def __init__(self, failure: Failure) -> None:
        code = INVALID_REQUEST if isinstance(failure, Unauthenticated) else INTERNAL_ERROR
        super().__init__(code, f"{failure.code}: {failure.detail}")
        self.failure = failure


async def error_boundary(operation: Awaitable[T]) -> T:
    """Await the operation, for at most `CALL_LIMIT_S`.

    Raises only `MCPError`, because the SDK sends the texts of other exceptions to clients. Raises `RequestFailure` if
    the whole request failed.
    """
    try:
        async with asyncio.timeout(CALL_LIMIT_S):
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
