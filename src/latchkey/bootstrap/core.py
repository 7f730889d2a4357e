"""The parts that both `serve` and `mcp` need: database, dispatcher and MCP server."""

from datetime import timedelta
from functools import partial

from mcp.server.lowlevel import Server
from msgspec import Struct
from sqlalchemy.ext.asyncio import AsyncEngine

from latchkey.application.dispatcher import Dispatcher
from latchkey.application.external_calls import ExternalCallExecutor
from latchkey.application.tool_calls import ToolCallExecutor
from latchkey.application.turns.approvals import Approvals
from latchkey.bootstrap.registry import Registry
from latchkey.config import Settings
from latchkey.domain.quota import Quota
from latchkey.infrastructure.database.event_bus import LocalEventBus, PostgreSQLEventBus
from latchkey.infrastructure.database.sql.engine import create_engine
from latchkey.infrastructure.database.unit_of_work import SqlUnitsOfWork
from latchkey.infrastructure.telemetry.logging import log_call
from latchkey.infrastructure.tool_context import HttpToolContexts
from latchkey.interfaces.mcp.server import create_server
from latchkey.interfaces.mcp.tools import bind_tool


class Core(Struct, frozen=True):
    """The parts of the service that do not depend on HTTP."""

    engine: AsyncEngine
    event_bus: LocalEventBus
    units: SqlUnitsOfWork
    dispatcher: Dispatcher
    mcp_server: Server
    approvals: Approvals
    registry: Registry


def create_core(settings: Settings, registry: Registry | None = None) -> Core:
    """Create the parts, with the app of the settings unless a registry is given. Opens no connection yet.

    Raises `AppError`.
    """
    registry = registry or Registry.read(settings)
    engine = create_engine(settings.database_url)
    event_bus = PostgreSQLEventBus(settings.database_url) if engine.dialect.name == "postgresql" else LocalEventBus()
    quota = Quota(settings.requests_per_minute, settings.bytes_per_user)
    units = SqlUnitsOfWork(engine, event_bus, schema=registry.schema)
    dispatcher = Dispatcher(units, log_call, quota)
    executor = ToolCallExecutor(dispatcher, settings.turn_max_calls, timedelta(seconds=settings.approval_ttl_s))
    external = ExternalCallExecutor(dispatcher, executor, event_bus, HttpToolContexts())
    lease = timedelta(seconds=settings.turn_lease_s)
    approvals = Approvals(dispatcher, external, partial(bind_tool, registry.tools), lease)
    server = create_server(dispatcher, executor, external, registry.tools, settings.approval_ttl_s)
    return Core(engine, event_bus, units, dispatcher, server, approvals, registry)
