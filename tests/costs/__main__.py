"""Measures all operations and writes the budget: `python -m tests.costs`."""

from collections.abc import Iterator
from typing import get_args

import click
from msgspec.structs import asdict

from bench.environment import DatabaseKind, bench_environment
from latchkey.infrastructure.database.migrations import upgrade
from tests.costs.budget import FILE, HEADER
from tests.costs.measure import Cost
from tests.costs.subprocess_measurement import measure_in_subprocess


def main() -> None:
    lines = [line for kind in get_args(DatabaseKind) for line in _section(kind, _measure(kind))]
    FILE.write_text("\n".join([HEADER, *lines]))
    click.echo(f"Written: {FILE}")


def _measure(kind: DatabaseKind) -> dict[str, Cost]:
    with bench_environment(kind) as environment, environment.database("latchkey") as url:
        upgrade(url)
        return measure_in_subprocess(url, environment.model_url, environment.folder / "costs.log")


def _section(kind: DatabaseKind, costs: dict[str, Cost]) -> Iterator[str]:
    yield f"[{kind}]"
    for name, cost in costs.items():
        numbers = ", ".join(f"{key} = {number}" for key, number in asdict(cost).items())
        yield f"{name} = {{ {numbers} }}"
    yield ""


if __name__ == "__main__":
    main()
