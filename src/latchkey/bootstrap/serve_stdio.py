"""`latchkey mcp`: MCP over standard input and output, for one agent on this machine."""

import asyncio

from latchkey.application.tool_calls import CALL_LIMIT_S
from latchkey.bootstrap.core import create_core
from latchkey.bootstrap.database import check_database
from latchkey.config import Settings
from latchkey.domain.credentials import TokenSecret
from latchkey.infrastructure.database.clock import synchronized_clock
from latchkey.infrastructure.telemetry import logging as telemetry
from latchkey.interfaces.mcp.stdio import serve_stdio


def serve(settings: Settings, secret: TokenSecret) -> None:
    """Serve until standard input ends.

    Raises `Unauthenticated` for an unknown, expired or revoked token, and what `check_database` does.
    """
    telemetry.configure()
    check_database(settings)
    asyncio.run(_serve(settings, secret))


async def _serve(settings: Settings, secret: TokenSecret) -> None:
    core = create_core(settings)
    try:
        async with synchronized_clock(core.engine, core.units):
            await core.dispatcher.resolve_scope(secret)
            async with core.event_bus.run():
                longest_call_s = CALL_LIMIT_S + max(tool.timeout_s for tool in core.registry.tools.values())
                await serve_stdio(core.mcp_server, secret, longest_call_s)
    finally:
        await core.engine.dispose()
