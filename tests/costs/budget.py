"""Reads the budget of each operation, and compares it with measured costs."""

import tomllib
from pathlib import Path

import msgspec

from tests.costs.measure import Cost

FILE = Path(__file__).with_suffix(".toml")

HEADER = """\
# The exact cost of each operation: transactions, statements and round trips.
# `python -m tests.costs` measures the costs and writes this file; `make bench` shows what a change means in CPU time.
"""

HELP = """
{kind}: the costs of operations have changed.

{changes}

Transactions, statements and round trips must equal the budget.
If the change is intended, measure its CPU time (`make bench`, docs/performance.md).
Then write the new numbers into {file}: `python -m tests.costs`.
"""


def read_budget(kind: str) -> dict[str, Cost]:
    table = tomllib.loads(FILE.read_text())[kind]
    return msgspec.convert(table, dict[str, Cost])


def changes(budget: dict[str, Cost], measured: dict[str, Cost]) -> list[str]:
    """One line for each number that differs from the budget."""
    lines = []
    for name in sorted(budget.keys() | measured.keys()):
        if name not in budget or name not in measured:
            lines.append(f"{name}: only {'measured' if name in measured else 'in the budget'}")
            continue
        expected, actual = msgspec.structs.asdict(budget[name]), msgspec.structs.asdict(measured[name])
        lines += [f"{name}: {key} {expected[key]} -> {actual[key]}" for key in actual if actual[key] != expected[key]]
    return lines
