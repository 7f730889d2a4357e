"""Corrects the time of the units of work by the offset of this machine's clock to the database's clock.

A lease is written by one replica and compared by another, so that all of them must use the same clock.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta

import structlog
from sqlalchemy.ext.asyncio import AsyncEngine

from latchkey.infrastructure.database.unit_of_work import SqlUnitsOfWork

WARNING_OFFSET = timedelta(seconds=2)

_INTERVAL_S = 60.0
_RETRY_S = 1.0
_TIMEOUT_S = 3.0

_log = structlog.get_logger("latchkey.clock")


@asynccontextmanager
async def synchronized_clock(engine: AsyncEngine, units: SqlUnitsOfWork) -> AsyncIterator[None]:
    """Correct the time of the units of work before the context is entered, and every minute until it is left.

    SQLite is used by one process on one machine, and needs no correction.
    """
    if engine.dialect.name != "postgresql":
        yield
        return
    is_measured = await _synchronize(engine, units)
    task = asyncio.create_task(_synchronize_forever(engine, units, _INTERVAL_S if is_measured else _RETRY_S))
    try:
        yield
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def measure_clock_offset(engine: AsyncEngine, units: SqlUnitsOfWork) -> timedelta:
    """Return what must be added to the uncorrected time of the units of work to get that of PostgreSQL.

    Zero if the difference is within the error of the measurement. Raises the driver's error, or `TimeoutError`.
    """
    async with asyncio.timeout(_TIMEOUT_S), engine.connect() as connection:
        before = units.read_clock()
        result = await connection.exec_driver_sql("SELECT clock_timestamp()")
        after = units.read_clock()
    database_time: datetime = result.scalar_one()
    offset = database_time.astimezone(UTC) - (before + (after - before) / 2)
    return offset if abs(offset) > after - before else timedelta()


async def _synchronize_forever(engine: AsyncEngine, units: SqlUnitsOfWork, pause_s: float) -> None:
    while True:
        await asyncio.sleep(pause_s)
        pause_s = _INTERVAL_S if await _synchronize(engine, units) else _RETRY_S


async def _synchronize(engine: AsyncEngine, units: SqlUnitsOfWork) -> bool:
    """Return whether the offset has been measured. Otherwise the last one stays in use."""
    try:
        units.clock_offset = await measure_clock_offset(engine, units)
    except Exception as error:  # noqa: BLE001  # the database may be down: the service must go on
        _log.warning("clock_offset_unknown", error=type(error).__name__)
        return False
    if abs(units.clock_offset) > WARNING_OFFSET:
        _log.warning(
            "clock_offset",
            offset_s=round(units.clock_offset.total_seconds(), 3),
            detail="This machine's clock differs from the database's: synchronise it with NTP.",
        )
    return True
