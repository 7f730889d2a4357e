"""What every command that touches data needs."""

from mcp.server.lowlevel import Server
from msgspec import Struct
from sqlalchemy.ext.asyncio import AsyncEngine

from latchkey.application.dispatcher import Application
from latchkey.application.tool_calls import Ledger
from latchkey.config import Settings
from latchkey.domain.quota import Quota
from latchkey.infrastructure.database.events.local import LocalFeed
from latchkey.infrastructure.database.events.postgresql import ListeningFeed
from latchkey.infrastructure.database.sql.engine import create_engine
from latchkey.infrastructure.database.unit_of_work import SqlUnitsOfWork
from latchkey.infrastructure.telemetry.logging import log_call
from latchkey.interfaces.mcp.server import create_server


class Core(Struct, frozen=True):
    engine: AsyncEngine
    feed: LocalFeed
    application: Application
    mcp_server: Server


def create_core(settings: Settings) -> Core:
    engine = create_engine(settings.database_url)
    feed = ListeningFeed(settings.database_url) if engine.dialect.name == "postgresql" else LocalFeed()
    quota = Quota(settings.requests_per_minute, settings.bytes_per_user)
    application = Application(SqlUnitsOfWork(engine, feed), log_call, quota)
    return Core(engine, feed, application, create_server(application, Ledger(application, settings.turn_max_calls)))
