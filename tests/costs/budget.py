"""What each operation may cost: the one table of numbers that the tests here hold it against."""

import math
import sys
import tomllib
from pathlib import Path

import msgspec

from tests.costs.figures import Cost

FILE = Path(__file__).with_suffix(".toml")
SLACK = 1.1 if sys.version_info[:2] == (3, 11) else math.inf
"""For allocations, which differ by 1 % from run to run, and by more from one Python to the next: those of the budget
are of 3.11. Statements do not differ at all."""

HEAD = """\
# What each operation may cost: transactions, statements and round trips exactly, allocations at most 10 % more.
# `python -m tests.costs` writes it anew from what is measured; a growth is to be worth what it costs (`make bench`).
"""

ADVICE = """
{kind}: what operations cost has changed.

{changes}

Statements, transactions and round trips must be as the budget says; allocations at most 10 % more.
If the change is meant, measure what it costs (`make bench`; docs/performance.md says what to look at). If it is worth
that, or costs less than before, `python -m tests.costs` writes the new numbers into {file}.
"""


def budget(kind: str) -> dict[str, Cost]:
    table = tomllib.loads(FILE.read_text())[kind]
    return msgspec.convert(table, dict[str, Cost])


def changes(allowed: dict[str, Cost], measured: dict[str, Cost], slack: float = SLACK) -> list[str]:
    """One line for each number that is not within the budget."""
    lines = []
    for name in sorted(allowed.keys() | measured.keys()):
        if name not in allowed or name not in measured:
            lines.append(f"{name}: only {'measured' if name in measured else 'in the budget'}")
            continue
        had, has = msgspec.structs.asdict(allowed[name]), msgspec.structs.asdict(measured[name])
        for what, number in has.items():
            if number > had[what] * slack if what == "allocations" else number != had[what]:
                lines.append(f"{name}: {what} {had[what]} -> {number}")
    return lines
