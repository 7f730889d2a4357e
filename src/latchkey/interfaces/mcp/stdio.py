"""MCP over standard input and output, for one context token."""

from typing import Any

from mcp.server.lowlevel import Server
from mcp.server.stdio import stdio_server

from latchkey.domain.scope import TokenSecret
from latchkey.interfaces.mcp.caller import seen_by


async def serve_stdio(server: Server[Any], secret: TokenSecret) -> None:
    """Serve until the client closes standard input. Every call resolves the token anew.

    Nothing but the protocol reaches standard output meanwhile: what anybody prints goes to standard error.
    """
    view = seen_by(server, secret)
    async with stdio_server() as (read, write):
        await view.run(read, write, view.create_initialization_options())
