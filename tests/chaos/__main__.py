"""The long fault injection run: `python -m tests.chaos --kills 500`. Prints a report and fails if it has anomalies."""

import asyncio
import secrets
import sys
from collections import Counter
from collections.abc import Callable
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from uuid import uuid4

import click

from latchkey.infrastructure.database.migrations import upgrade
from latchkey.testing.postgresql import postgresql
from tests.chaos.fault_injection import FaultInjection
from tests.chaos.postgresql_cluster import PostgresqlCluster
from tests.chaos.report import Report
from tests.chaos.scripted_model import scripted_model
from tests.chaos.sqlite_cluster import SqliteCluster

KILLS_PER_ROUND = 25
"""After each round everything is verified; the next one has new users."""


@click.command()
@click.option("--kills", default=500, show_default=True, type=click.IntRange(1), help="Number of kills per database.")
@click.option("--seed", type=int, help="Seed of the faults and messages. Random by default.")
@click.option("--database", default="both", show_default=True, type=click.Choice(["sqlite", "postgresql", "both"]))
def chaos(kills: int, seed: int | None, database: str) -> None:
    """Kill replicas at random moments while clients chat, then verify that all data is consistent."""
    seed = secrets.randbelow(1_000_000) if seed is None else seed
    click.echo(f"seed {seed}")
    anomalies = 0
    for name, run in (("sqlite", _run_on_sqlite), ("postgresql", _run_on_postgresql)):
        if database in {name, "both"}:
            with TemporaryDirectory(prefix="latchkey-chaos-") as folder:
                home = Path(folder) / "home"
                home.mkdir()
                report = run(home, kills, seed)
            click.echo(f"{name}\n{report}\n")
            anomalies += len(report.anomalies)
    sys.exit(anomalies > 0)


def _run_on_sqlite(home: Path, kills: int, seed: int) -> Report:
    url = f"sqlite+aiosqlite:///{home / 'latchkey.db'}"
    upgrade(url)
    return asyncio.run(_run(partial(SqliteCluster, home, url), kills, seed))


def _run_on_postgresql(home: Path, kills: int, seed: int) -> Report:
    with postgresql(home.parent / "postgresql.log") as server:
        name = f"latchkey_chaos_{uuid4().hex[:12]}"
        url = server.create_database(name)
        try:
            upgrade(url)
            return asyncio.run(_run(partial(PostgresqlCluster, home, url), kills, seed))
        finally:
            server.drop_database(name)


async def _run(create: Callable[[str], SqliteCluster | PostgresqlCluster], kills: int, seed: int) -> Report:
    async with scripted_model() as model, create(model.base_url).up() as cluster:
        faults, total = FaultInjection(cluster, model, seed), Report(Counter())
        while (left := kills - total.kills.total()) > 0:
            report = await faults.run(min(left, KILLS_PER_ROUND))
            for anomaly in report.anomalies:
                click.echo(f"  {anomaly}")
            total.merge(report)
            click.echo(f"{cluster.name}: {total.kills.total()} kills, {len(total.anomalies)} anomalies", err=True)
    return total


if __name__ == "__main__":
    chaos()
