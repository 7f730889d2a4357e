"""An MCP client of the server in the same process: the same protocol, without a network connection."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from mcp import Client
from mcp.server.lowlevel import Server
from mcp_types.version import LATEST_MODERN_VERSION

from latchkey.domain.credentials import Scope, TokenSecret
from latchkey.interfaces.mcp.principal import Principal, with_principal


@asynccontextmanager
async def connect(server: Server[Any], secret: TokenSecret, scope: Scope | None = None) -> AsyncIterator[Client]:
    """Open a client with this context token. If its `scope` is given, `tools/list` reads nothing from the database.

    Each call verifies the token again. The client's methods raise `MCPError`: with code -32600 (invalid request) if
    the token is invalid, and -32603 (internal error) if the database is unavailable.
    """
    view = with_principal(server, Principal(secret, scope))
    async with Client(view, mode=LATEST_MODERN_VERSION, cache=None) as client:
        yield client
