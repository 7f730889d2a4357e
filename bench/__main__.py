"""`make bench`, or `python -m bench`: compares Latchkey with the baseline. See bench/README.md."""

from collections.abc import Iterable
from pathlib import Path
from typing import Literal

import click
import msgspec

from bench import growth, workers
from bench.comparison import Plan, compare
from bench.environment import DatabaseKind
from bench.growth import grow
from bench.tables import GOALS, sqlite_table, table
from bench.workers import compare_workers

Question = Literal["limit", "growth", "workers"]

OPERATIONS: dict[Question, list[str]] = {
    "limit": [*GOALS],
    "growth": [*growth.READS, *growth.WRITES],
    "workers": workers.OPERATIONS,
}


@click.command()
@click.option("--limit", "question", flag_value="limit", default="limit", help="compare with the baseline (default)")
@click.option("--growth", "question", flag_value="growth", help="with more and more rows and users (15 minutes)")
@click.option("--workers", "question", flag_value="workers", help="compare two workers with one")
@click.option("--ops", default="", help="operations, separated by commas; default: all")
@click.option("--rounds", default=7, show_default=True)
@click.option("--seconds", default=1.5, show_default=True, help="duration of each measurement")
@click.option("--connections", default=16, show_default=True, type=click.IntRange(1, 64))
@click.option("--sqlite", "kind", flag_value="sqlite", default="postgresql", help="use SQLite instead of PostgreSQL")
@click.option(
    "--json", "file", type=click.Path(path_type=Path), help="write the comparison with the baseline to this file"
)
def main(question: Question, ops: str, kind: DatabaseKind, file: Path | None, **plan: float) -> None:
    """Measure the CPU time and the latency of requests."""
    planned = msgspec.convert({"operations": _operations(ops, OPERATIONS[question]), **plan}, Plan)
    if question == "growth":
        _print(grow(kind, planned))
    elif question == "workers":
        _print(compare_workers(planned))
    else:
        _compare(kind, planned, file)


def _compare(kind: DatabaseKind, plan: Plan, file: Path | None) -> None:
    rows = compare(kind, plan)
    _print((sqlite_table if kind == "sqlite" else table)(rows))
    if file:
        file.write_bytes(msgspec.json.format(msgspec.json.encode(rows)))
    if wrong := {name: row.errors for name, row in rows.items() if row.errors}:
        raise click.ClickException(f"Wrong responses: {wrong}")


def _operations(names: str, known: list[str]) -> list[str]:
    chosen = names.split(",") if names else known
    if unknown := [name for name in chosen if name not in known]:
        raise click.BadParameter(f"{', '.join(unknown)}; there are {', '.join(known)}", param_hint="--ops")
    return chosen


def _print(lines: Iterable[str]) -> None:
    for line in lines:
        click.echo(line)


if __name__ == "__main__":
    main()
