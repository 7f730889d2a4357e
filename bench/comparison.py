"""Compares the CPU time of each request in Latchkey with that of the baseline, alternating on the same machine."""

from contextlib import ExitStack
from statistics import median

import click
import uvloop
from msgspec import Struct

from bench.environment import DatabaseKind, Server, bench_environment
from bench.measurement import Load, Result, prime


class Plan(Struct, frozen=True):
    """What to measure, and for how long."""

    operations: list[str]
    rounds: int
    seconds: float
    connections: int


class Pair(Struct, frozen=True):
    """The results of one operation in one round."""

    limit: Result
    ours: Result


class Row(Struct, frozen=True):
    """Medians of all rounds. Times in milliseconds; CPU in milliseconds per request."""

    limit_cpu: float
    cpu: float
    p50: float
    p99: float
    limit_rps: float
    rps: float
    errors: dict[str, int]

    @property
    def ratio(self) -> float:
        return self.cpu / self.limit_cpu

    @property
    def share(self) -> float:
        """The throughput as a share of that of the baseline."""
        return self.rps / self.limit_rps


def compare(kind: DatabaseKind, plan: Plan) -> dict[str, Row]:
    """Measure each operation on both servers in every round. The order of the servers alternates."""
    with ExitStack() as open_:
        on = open_.enter_context(bench_environment(kind))
        limit, ours = (open_.enter_context(server) for server in (on.limit(), on.latchkey()))
        for server in (limit, ours):
            server.seed_users()
            for name in plan.operations:
                uvloop.run(prime(server.target.operations[name], plan.connections))
        pairs: dict[str, list[Pair]] = {name: [] for name in plan.operations}
        for number in range(plan.rounds):
            for name in plan.operations:
                pairs[name].append(_pair(name, number, limit, ours, plan))
            click.echo(f"round {number + 1} of {plan.rounds}", err=True)
    return {name: _row(several) for name, several in pairs.items()}


def _pair(name: str, number: int, limit: Server, ours: Server, plan: Plan) -> Pair:
    results: dict[int, Result] = {}
    for server in (limit, ours) if number % 2 == 0 else (ours, limit):
        load = Load(server.target.operations[name])
        results[server.pid] = uvloop.run(load.measure(plan.connections, plan.seconds, server.pid))
    return Pair(results[limit.pid], results[ours.pid])


def _row(pairs: list[Pair]) -> Row:
    ours, limit = [pair.ours for pair in pairs], [pair.limit for pair in pairs]
    return Row(
        limit_cpu=median(one.cpu for one in limit),
        cpu=median(one.cpu for one in ours),
        p50=median(one.p50 for one in ours),
        p99=median(one.p99 for one in ours),
        limit_rps=median(one.rps for one in limit),
        rps=median(one.rps for one in ours),
        errors={what: count for one in (*ours, *limit) for what, count in one.errors.items()},
    )
