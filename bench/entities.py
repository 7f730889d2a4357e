"""CPU time of an app's repositories compared with the built-in tasks: `python -m bench.entities`.

Each unit of work writes or reads the same small row, once as a task, once with `Repository` (SQLAlchemy Core), and once
with `EntityRepository` (SQLAlchemy's ORM and advanced-alchemy). The measurements alternate. On SQLite the time includes
that of the database, which runs in this process.
"""

import asyncio
import tempfile
from collections.abc import Awaitable, Callable
from pathlib import Path
from statistics import median
from time import process_time

import click
import uvloop
from uuid_utils.compat import uuid7

from latchkey.domain.credentials import Owner, UserId
from latchkey.domain.page import Window
from latchkey.domain.ports import TransactionMode
from latchkey.infrastructure.database.migrations import upgrade
from latchkey.infrastructure.database.sql.engine import create_engine
from latchkey.infrastructure.database.unit_of_work import SqlUnitOfWork, SqlUnitsOfWork
from latchkey.testing.postgresql import postgresql
from tests.builders import a_task
from tests.contract.database.entities import orm_shop, shop

ROUNDS = 15
REPETITIONS = 100
ROWS = 50
WINDOW = Window(ROWS)
Action = Callable[[SqlUnitOfWork], Awaitable[object]]

ADD: dict[str, Action] = {
    "task": lambda uow: uow.tasks.add(a_task()),
    "Repository": lambda uow: uow.repository(shop.Reservations).add(shop.a_reservation()),
    "EntityRepository": lambda uow: uow.repository(orm_shop.Bookings).add(orm_shop.Booking(comment="Blue")),
}
LIST: dict[str, Action] = {
    "task": lambda uow: uow.tasks.page(None, WINDOW),
    "Repository": lambda uow: uow.repository(shop.Reservations).page(WINDOW),
    "EntityRepository": lambda uow: uow.repository(orm_shop.Bookings).page(WINDOW),
}


async def run(units: SqlUnitsOfWork, owner: Owner, mode: TransactionMode, action: Action) -> None:
    async with units.open(owner, mode) as uow:
        await action(uow)
        await uow.commit()


async def measure(units: SqlUnitsOfWork, mode: TransactionMode, actions: dict[str, Action]) -> dict[str, float]:
    """Return the CPU time of one unit of work in microseconds."""
    times: dict[str, list[float]] = {name: [] for name in actions}
    for number in range(ROUNDS + 1):
        for name, action in actions.items():
            owner = Owner(UserId("reader" if mode == "read" else f"writer-{uuid7()}"))
            started = process_time()
            for _ in range(REPETITIONS):
                await run(units, owner, mode, action)
            if number:  # the first round warms up
                times[name].append((process_time() - started) / REPETITIONS * 1e6)
    return {name: median(several) for name, several in times.items()}


async def compare(name: str, url: str) -> None:
    for metadata in (shop.METADATA, orm_shop.Base.metadata):
        await shop.create_tables(url, metadata)
    engine = create_engine(url)
    units = SqlUnitsOfWork(engine)
    for action in ADD.values():
        for _ in range(ROWS):
            await run(units, Owner(UserId("reader")), "write", action)
    for title, figures in (
        ("add one", await measure(units, "write", ADD)),
        (f"list {ROWS}", await measure(units, "read", LIST)),
    ):
        columns = "  ".join(f"{kind} {time:.0f} us ({time / figures['task']:.2f})" for kind, time in figures.items())
        click.echo(f"{name:10}  {title:8}  {columns}")
    await engine.dispose()


def main() -> None:
    with tempfile.TemporaryDirectory() as folder, postgresql(Path(folder) / "log") as server:
        for name, url in {
            "SQLite": f"sqlite+aiosqlite:///{folder}/latchkey.db",
            "PostgreSQL": server.create_database("bench"),
        }.items():
            upgrade(url)
            with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
                runner.run(compare(name, url))


if __name__ == "__main__":
    main()
