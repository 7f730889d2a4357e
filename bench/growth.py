"""What a request costs as its user's rows and the tables grow: `make bench ARGS=--growth`.

One connection, and the least p50 of all rounds, as other work on the machine only ever adds. For users with 10, 1,000
and 100,000 tasks and messages; first alone, then beside 10,000 other users with 100 tasks each. Pages are of ten items
and histories of five turns for all of them.
"""

from collections.abc import Iterator

import click
import uvloop

from bench.comparison import Plan
from bench.measurement import Load
from bench.stage import Kind, Server, stage

SIZES = (10, 1_000, 100_000)
OTHERS, ROWS_OF_OTHERS = 10_000, 100
READS = ["rest_list_ten_tasks", "rest_get_task", "rest_get_ten_messages", "mcp_list_ten_tasks"]
WRITES = ["rest_add_task", "mcp_add_task", "chat_turn_no_tool", "chat_turn_one_tool", "chat_turn_history"]
GOAL = 1.2

Curve = dict[str, dict[int, float]]
"""The least p50 of each operation for each size, in milliseconds."""


def grow(kind: Kind, plan: Plan) -> Iterator[str]:
    """As Markdown: in each cell alone and beside the others."""
    with stage(kind) as on, on.latchkey(LATCHKEY_HISTORY_TURNS="5") as server:
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
    """People of this curve alone, so that each has the rows that it says."""
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
