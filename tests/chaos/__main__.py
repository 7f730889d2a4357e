"""The long run: `python -m tests.chaos --kills 500`. It says what it found, and fails if that is anything."""

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
from tests.chaos.clockwork import clockwork
from tests.chaos.figures import Figures
from tests.chaos.postgresql_cluster import PostgresqlCluster
from tests.chaos.sqlite_cluster import SqliteCluster
from tests.chaos.storm import Storm
from tests.postgresql import postgresql

ROUND = 25
"""After so many kills all is looked into, and new users come."""


@click.command()
@click.option("--kills", default=500, show_default=True, type=click.IntRange(1), help="On each database.")
@click.option("--seed", type=int, help="What is broken when. A random one unless given.")
@click.option("--database", default="both", show_default=True, type=click.Choice(["sqlite", "postgresql", "both"]))
def chaos(kills: int, seed: int | None, database: str) -> None:
    """Kill replicas at random moments, and look into what became of everything."""
    seed = secrets.randbelow(1_000_000) if seed is None else seed
    click.echo(f"seed {seed}")
    anomalies = 0
    for name, run in (("sqlite", _on_sqlite), ("postgresql", _on_postgresql)):
        if database in {name, "both"}:
            with TemporaryDirectory(prefix="latchkey-chaos-") as folder:
                home = Path(folder) / "home"
                home.mkdir()
                figures = run(home, kills, seed)
            click.echo(f"{name}\n{figures}\n")
            anomalies += len(figures.anomalies)
    sys.exit(anomalies > 0)


def _on_sqlite(home: Path, kills: int, seed: int) -> Figures:
    url = f"sqlite+aiosqlite:///{home / 'latchkey.db'}"
    upgrade(url)
    return asyncio.run(_storm(partial(SqliteCluster, home, url), kills, seed))


def _on_postgresql(home: Path, kills: int, seed: int) -> Figures:
    with postgresql(home.parent / "postgresql.log") as server:
        name = f"latchkey_chaos_{uuid4().hex[:12]}"
        url = server.create_database(name)
        try:
            upgrade(url)
            return asyncio.run(_storm(partial(PostgresqlCluster, home, url), kills, seed))
        finally:
            server.drop_database(name)


async def _storm(create: Callable[[str], SqliteCluster | PostgresqlCluster], kills: int, seed: int) -> Figures:
    async with clockwork() as model, create(model.base_url).up() as cluster:
        storm, total = Storm(cluster, model, seed), Figures(Counter())
        while (left := kills - total.kills.total()) > 0:
            figures = await storm.rage(min(left, ROUND))
            for anomaly in figures.anomalies:
                click.echo(f"  {anomaly}")
            total.merge(figures)
            click.echo(f"{cluster.name}: {total.kills.total()} kills, {len(total.anomalies)} anomalies", err=True)
    return total


if __name__ == "__main__":
    chaos()
