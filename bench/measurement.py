"""Measures one operation under load: latencies, and the CPU time of the server per request."""

import asyncio
import gc
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from time import perf_counter
from typing import Any

import psutil
from msgspec import Struct

from bench.http1 import Connection
from bench.target import Operation, Values, Wrong

WARM_S = 0.4
TIMEOUT_S = 60.0


class Result(Struct, frozen=True):
    """Times in milliseconds; `cpu` is the CPU time of the server per request."""

    rps: float
    p50: float
    p99: float
    cpu: float
    count: int
    errors: dict[str, int]


class Load:
    """Connections that send the next request as soon as they have a response. Every response is checked."""

    def __init__(self, operation: Operation) -> None:
        self._operation = operation
        self._recording = False
        self._times: list[float] = []
        self._errors: Counter[str] = Counter()

    async def measure(self, connections: int, seconds: float, pid: int, **values: Any) -> Result:
        ready = [await self._operation.prepare(worker, **values) for worker in range(connections)]
        with _without_collections():
            until = perf_counter() + WARM_S + seconds
            running = [asyncio.create_task(self._ask(*pair, until)) for pair in ready]
            await asyncio.sleep(WARM_S)
            spent, start, self._recording = cpu_seconds(pid), perf_counter(), True
            async with asyncio.timeout(seconds + TIMEOUT_S):
                await asyncio.gather(*running)
            spent, elapsed = cpu_seconds(pid) - spent, perf_counter() - start
        return self._result(spent, elapsed)

    async def _ask(self, connection: Connection, values: Values, until: float) -> None:
        while (start := perf_counter()) < until:
            try:
                answer = await connection.request(self._operation.build(values))
                self._operation.check(answer, values)
            except (Wrong, ConnectionError) as error:
                self._errors[str(error)] += 1
                connection.close()
                connection = await Connection.open(*self._operation.target.address)
            else:
                if self._recording:
                    self._times.append(perf_counter() - start)
        connection.close()

    def _result(self, spent: float, elapsed: float) -> Result:
        times, count = sorted(self._times), len(self._times)
        if not count:
            raise RuntimeError(f"{self._operation.name}: no correct response: {self._errors}")
        p50, p99 = (times[int(count * share)] * 1000 for share in (0.5, 0.99))
        return Result(count / elapsed, p50, p99, spent * 1000 / count, count, dict(self._errors.most_common(3)))


async def prime(operation: Operation, connections: int) -> None:
    """Run an operation `primed` times per connection before it is measured."""

    async def ask(worker: int) -> None:
        connection, values = await operation.prepare(worker)
        for _ in range(operation.primed):
            await operation.once(connection, values)
        connection.close()

    await asyncio.gather(*(ask(worker) for worker in range(connections)))


def cpu_seconds(pid: int) -> float:
    """CPU seconds of a process and its descendants."""
    root = psutil.Process(pid)
    total: float = root.cpu_times().children_user + root.cpu_times().children_system
    for process in (root, *root.children(recursive=True)):
        with suppress(psutil.NoSuchProcess):  # it has ended and is part of the children's time
            times = process.cpu_times()
            total += times.user + times.system
    return total


@contextmanager
def _without_collections() -> Iterator[None]:
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        gc.enable()
