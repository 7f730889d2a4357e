"""An MCP client of the server in the same process: the real protocol, without a wire."""

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
    """A client that holds that token. Whoever minted it knows its scope: then the list of tools takes no look-up.

    Each call resolves it anew, and raises `MCPError` once it opens nothing: with code -32600 (invalid request)
    where the token is refused, and -32603 where the database is away.
    """
    async with Client(
        with_principal(server, lambda: Principal(secret, scope)), mode=LATEST_MODERN_VERSION, cache=None
    ) as client:
        yield client
