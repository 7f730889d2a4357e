"""Whether a database keeps users apart: looked at before the service starts on it."""

from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from latchkey.domain.errors import Failure
from latchkey.infrastructure.database.guard import USER, UnpinnedStatement
from latchkey.infrastructure.database.row_security import row_security_faults
from latchkey.infrastructure.database.tables import tasks

_PRAGMAS = {"foreign_keys": 1, "journal_mode": "wal"}


class IsolationBroken(Failure):
    """This database would not keep users apart; the text lists everything that is wrong, and what would be right."""


async def verify(engine: AsyncEngine) -> None:
    """Raises `IsolationBroken`; and what the driver does, if the database does not answer."""
    async with engine.connect() as connection:
        faults = await _guard_faults(connection)
        if engine.dialect.name == "postgresql":
            faults += await row_security_faults((await connection.get_raw_connection()).driver_connection)
        else:
            faults += await _pragma_faults(connection)
    if faults:
        raise IsolationBroken("\n".join(["The database would not keep users apart:", *faults]))


async def _guard_faults(connection: AsyncConnection) -> list[str]:
    try:
        await connection.execute(select(tasks.c.id).limit(0), {USER: "nobody"})
    except UnpinnedStatement:
        return []
    return ["The engine has no statement guard: make it with `create_engine`."]


async def _pragma_faults(connection: AsyncConnection) -> list[str]:
    found = {name: (await connection.exec_driver_sql(f"PRAGMA {name}")).scalar() for name in _PRAGMAS}
    return [
        f"SQLite's {name} is {found[name]}, not {right}: it must be a file on a local disk, opened by `create_engine`."
        for name, right in _PRAGMAS.items()
        if found[name] != right
    ]
