"""What leaves a handler when something goes wrong: a protocol error that says what a client may know."""

import asyncio
import logging
from collections.abc import Awaitable
from typing import TypeVar

from mcp import MCPError
from mcp_types import INTERNAL_ERROR, INVALID_REQUEST

from latchkey.domain.errors import Exhausted, Failure, Unauthenticated, Unavailable
from latchkey.interfaces.mcp.principal import Principal

T = TypeVar("T")

CALL_LIMIT_S = 30.0

_log = logging.getLogger("latchkey.mcp")


async def error_boundary(principal: Principal, answer: Awaitable[T]) -> T:
    """The answer, if it comes in time. Raises `MCPError` and nothing else: the SDK shows other texts to clients.

    What is wrong with the credential or the database is also noted on the caller, for the transport to say.
    """
    try:
        async with asyncio.timeout(CALL_LIMIT_S):
            return await answer
    except MCPError:
        raise
    except (Unauthenticated, Exhausted, Unavailable) as failure:
        principal.refused = failure
    except TimeoutError:
        principal.refused = Unavailable("This took too long: try again.")
    except Exception as error:
        _log.exception("An MCP handler failed.")
        raise MCPError(INTERNAL_ERROR, "Internal error") from error
    raise refusal(principal.refused)


def refusal(failure: Failure) -> MCPError:
    """A refused credential as -32600, which no client takes for a passing fault; anything else as -32603."""
    code = INVALID_REQUEST if isinstance(failure, Unauthenticated) else INTERNAL_ERROR
    return MCPError(code, f"{failure.code}: {failure.detail}")
