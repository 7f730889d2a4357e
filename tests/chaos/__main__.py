"""The long fault injection run: `python -m tests.chaos --kills 500 --restarts 50`.

Prints a report and fails if it has anomalies.
"""

import asyncio
import secrets
import sys
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from shutil import rmtree
from tempfile import mkdtemp
from uuid import uuid4

import click

from latchkey.infrastructure.database.migrations import upgrade
from latchkey.testing.postgresql import postgresql
from tests.chaos.fault_injection import FaultInjection
from tests.chaos.postgresql_cluster import PostgresqlCluster
from tests.chaos.replicas import LEASE_S
from tests.chaos.report import Report
from tests.chaos.scripted_model import scripted_model
from tests.chaos.sqlite_cluster import SqliteCluster

KILLS_PER_ROUND = 25
RESTARTS_PER_ROUND = 5
"""After each round everything is verified; the next one has new users."""


@click.command()
@click.option("--kills", default=500, show_default=True, type=click.IntRange(0), help="Number of kills per database.")
@click.option(
    "--restarts", default=0, show_default=True, type=click.IntRange(0), help="Number of rolling restarts on PostgreSQL."
)
@click.option(
    "--lease",
    "lease_s",
    default=LEASE_S,
    show_default=True,
    type=click.FloatRange(0.5),
    help="Seconds. On a busy machine a short lease expires while its process works.",
)
@click.option("--seed", type=int, help="Seed of the faults and messages. Random by default.")
@click.option("--database", default="both", show_default=True, type=click.Choice(["sqlite", "postgresql", "both"]))
def chaos(kills: int, restarts: int, seed: int | None, database: str, lease_s: float) -> None:
    """Kill and restart replicas at random moments while clients chat, then verify that all data is consistent."""
    seed = secrets.randbelow(1_000_000) if seed is None else seed
    click.echo(f"seed {seed}")
    anomalies = 0
    for name, run in (("sqlite", _run_on_sqlite), ("postgresql", _run_on_postgresql)):
        if database in {name, "both"}:
            folder = Path(mkdtemp(prefix="latchkey-chaos-"))
            home = folder / "home"
            home.mkdir()
            report = run(home, Plan(kills, restarts, seed, lease_s))
            click.echo(f"{name}\n{report}\n")
            anomalies += len(report.anomalies)
            if report.anomalies:
                click.echo(f"The logs of the replicas are in {folder}.")
            else:
                rmtree(folder)
    sys.exit(anomalies > 0)


@dataclass(frozen=True)
class Plan:
    """How many faults of each kind, and their seed."""

    kills: int
    restarts: int
    seed: int
    lease_s: float


def _run_on_sqlite(home: Path, plan: Plan) -> Report:
    url = f"sqlite+aiosqlite:///{home / 'latchkey.db'}"
    upgrade(url)
    return asyncio.run(_run(partial(SqliteCluster, home, url), replace(plan, restarts=0)))


def _run_on_postgresql(home: Path, plan: Plan) -> Report:
    with postgresql(home.parent / "postgresql.log") as server:
        name = f"latchkey_chaos_{uuid4().hex[:12]}"
        url = server.create_database(name)
        try:
            upgrade(url)
            return asyncio.run(_run(partial(PostgresqlCluster, home, url), plan))
        finally:
            server.drop_database(name)


async def _run(create: Callable[[str, float], SqliteCluster | PostgresqlCluster], plan: Plan) -> Report:
    async with scripted_model() as model, create(model.base_url, plan.lease_s).up() as cluster:
        faults, total = FaultInjection(cluster, model, plan.seed), Report(Counter())
        rounds = [
            *(partial(faults.run, count) for count in _split(plan.kills, KILLS_PER_ROUND)),
            *(partial(faults.run_restarts, count) for count in _split(plan.restarts, RESTARTS_PER_ROUND)),
        ]
        for run in rounds:
            report = await run()
            for anomaly in report.anomalies:
                click.echo(f"  {anomaly}")
            total.merge(report)
            click.echo(f"{cluster.name}: {total.kills.total()} kills, {len(total.anomalies)} anomalies", err=True)
    return total


def _split(total: int, size: int) -> list[int]:
    """The sizes of the rounds."""
    return [min(size, total - done) for done in range(0, total, size)]


if __name__ == "__main__":
    chaos()
