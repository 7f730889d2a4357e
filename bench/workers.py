"""What a second worker gives: `make bench ARGS=--workers`.

One worker and two, in turns, on the same machine. The load generator, the model and the database need cores of their
own: where there are none to spare, requests a second say little, and what two workers would carry is told by what CPU
a request costs each of them. `capacity` is that: twice the requests, for so many times the CPU each.
"""

from collections.abc import Iterator
from contextlib import ExitStack
from statistics import median

import click
import uvloop

from bench.comparison import Plan
from bench.measurement import Load, Result
from bench.stage import Server, stage

OPERATIONS = ["rest_add_task", "rest_list_tasks", "mcp_add_task", "chat_turn_one_tool"]
GOAL = 1.7


def multiply(plan: Plan) -> Iterator[str]:
    """As Markdown; on PostgreSQL, as SQLite is for one process."""
    with ExitStack() as open_:
        on = open_.enter_context(stage("postgresql"))
        services = [open_.enter_context(on.latchkey(workers=number)) for number in (1, 2)]
        for service in services:
            service.people()
        yield f"| operation | 1 worker, req/s | 2 workers | ratio | capacity (goal {GOAL}) |"
        yield "|---|--:|--:|--:|--:|"
        for name in plan.operations:
            yield _row(name, *_measured(services, name, plan))


def _measured(services: list[Server], name: str, plan: Plan) -> list[list[Result]]:
    """The results of each service."""
    results: list[list[Result]] = [[] for _ in services]
    for number in range(plan.rounds):
        for index in (0, 1) if number % 2 == 0 else (1, 0):
            service = services[index]
            load = Load(service.target.operations[name])
            results[index].append(uvloop.run(load.measure(plan.connections, plan.seconds, service.pid)))
    return results


def _row(name: str, one: list[Result], two: list[Result]) -> str:
    if wrong := [result.errors for result in (*one, *two) if result.errors]:
        raise click.ClickException(f"{name}: {wrong}")
    single, double = (median(result.rps for result in results) for results in (one, two))
    capacity = 2 * median(result.cpu for result in one) / median(result.cpu for result in two)
    return f"| `{name}` | {single:.0f} | {double:.0f} | {double / single:.2f} | {capacity:.2f} |"
