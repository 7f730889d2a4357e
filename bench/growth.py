"""The latency of requests as the rows of a user and the tables grow: `make bench ARGS=--growth`.

Uses one connection, and the smallest p50 of all rounds, because other work on the machine only adds time. Users have
10, 1,000 and 100,000 tasks and messages; first alone, then with 10,000 other users with 100 tasks each. All pages have
ten items, all histories five turns.
"""

from collections.abc import Iterator

import click
import uvloop

from bench.comparison import Plan
from bench.environment import DatabaseKind, Server, bench_environment
from bench.measurement import Load

SIZES = (10, 1_000, 100_000)
OTHERS, ROWS_OF_OTHERS = 10_000, 100
READS = ["rest_list_ten_tasks", "rest_get_task", "rest_get_ten_messages", "mcp_list_ten_tasks"]
WRITES = ["rest_add_task", "mcp_add_task", "chat_turn_no_tool", "chat_turn_one_tool", "chat_turn_history"]
GOAL = 1.2

Curve = dict[str, dict[int, float]]
"""The smallest p50 of each operation by size, in milliseconds."""


def grow(kind: DatabaseKind, plan: Plan) -> Iterator[str]:
    """A Markdown table. Each cell: alone / with the other users."""
    with bench_environment(kind) as on, on.latchkey(LATCHKEY_HISTORY_TURNS="5") as server:
        alone = _curve(server, "few", plan)
        server.seed("bulk", users=OTHERS, rows=ROWS_OF_OTHERS)
        crowded = _curve(server, "many", plan)
    yield f"| operation | {' | '.join(f'{size:,}' for size in SIZES)} | most / least (goal {GOAL}) |"
    yield "|---|" + "--:|" * (len(SIZES) + 1)
    for name in alone:
        pairs = [(alone[name][size], crowded[name][size]) for size in SIZES]
        times = [time for pair in pairs for time in pair]
        cells = " | ".join(f"{few:.2f} / {many:.2f}" for few, many in pairs)
        yield f"| `{name}` | {cells} | {max(times) / min(times):.2f} |"


def _curve(server: Server, beside: str, plan: Plan) -> Curve:
    """Uses its own users, so that each has exactly the given number of rows."""
    for size in SIZES:
        for kind in ("reader", "writer"):
            server.seed("user", user=f"{kind}-{beside}-{size}", rows=size)
    server.seed("finish")
    times: dict[str, dict[int, list[float]]] = {name: {size: [] for size in SIZES} for name in plan.operations}
    for number in range(plan.rounds):
        for name, by_size in times.items():
            for size in SIZES if number % 2 else reversed(SIZES):
                user = f"{'reader' if name in READS else 'writer'}-{beside}-{size}"
                load = Load(server.target.operations[name])
                result = uvloop.run(load.measure(1, plan.seconds, server.pid, user=user))
                if result.errors:
                    raise click.ClickException(f"{name}, {user}: {result.errors}")
                by_size[size].append(result.p50)
        click.echo(f"beside {beside}: round {number + 1} of {plan.rounds}", err=True)
    return {name: {size: min(several) for size, several in by_size.items()} for name, by_size in times.items()}
