"""Compares two workers with one: `make bench ARGS=--workers`.

Alternates between one worker and two on the same machine. The load generator, the model and the database also need
cores. Without spare cores the throughput says little; `capacity` is then the better measure: twice the CPU time per
request with one worker, divided by that with two.
"""

from collections.abc import Iterator
from contextlib import ExitStack
from statistics import median

import click
import uvloop

from bench.comparison import Plan
from bench.environment import Server, bench_environment
from bench.measurement import Load, Result

OPERATIONS = ["rest_add_task", "rest_list_tasks", "mcp_add_task", "chat_turn_one_tool"]
GOAL = 1.7


def compare_workers(plan: Plan) -> Iterator[str]:
    """A Markdown table. On PostgreSQL, because SQLite supports only one process."""
    with ExitStack() as open_:
        on = open_.enter_context(bench_environment("postgresql"))
        services = [open_.enter_context(on.latchkey(workers=number)) for number in (1, 2)]
        for service in services:
            service.seed_users()
        yield f"| operation | 1 worker, req/s | 2 workers | ratio | capacity (goal {GOAL}) |"
        yield "|---|--:|--:|--:|--:|"
        for name in plan.operations:
            yield _row(name, *_measured(services, name, plan))


def _measured(services: list[Server], name: str, plan: Plan) -> list[list[Result]]:
    """The results by service."""
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
