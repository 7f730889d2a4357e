"""Writes the budget anew, from what is measured now: `python -m tests.costs`."""

from collections.abc import Iterator
from typing import get_args

import click
from msgspec.structs import asdict

from bench.stage import Kind, stage
from latchkey.infrastructure.database.migrations import upgrade
from tests.costs.budget import FILE, HEAD
from tests.costs.figures import Cost
from tests.costs.measuring import measured


def main() -> None:
    lines = [line for kind in get_args(Kind) for line in _section(kind, _costs(kind))]
    FILE.write_text("\n".join([HEAD, *lines]))
    click.echo(f"Written: {FILE}")


def _costs(kind: Kind) -> dict[str, Cost]:
    with stage(kind) as on, on.database("latchkey") as url:
        upgrade(url)
        return measured(url, on.model_url, on.folder / "costs.log")


def _section(kind: Kind, costs: dict[str, Cost]) -> Iterator[str]:
    yield f"[{kind}]"
    for name, cost in costs.items():
        numbers = ", ".join(f"{what} = {number}" for what, number in asdict(cost).items())
        yield f"{name} = {{ {numbers} }}"
    yield ""


if __name__ == "__main__":
    main()
