"""What each operation costs, counted: `python -m tests.costs.figures DATABASE_URL MODEL_URL` prints it as JSON.

A program of its own, so that nothing that ran before makes a difference. On PostgreSQL statements and round trips are
counted on the wire, on SQLite statements as the driver tells them. Allocations are those of the whole process, Python's
own and all others (memray).
"""

import asyncio
import gc
import sys
import tempfile
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from uuid import uuid4

import memray
import msgspec
from msgspec import Struct
from sqlalchemy import event, make_url
from sqlalchemy.pool import Pool

from latchkey.infrastructure.telemetry import logging as telemetry
from tests.costs.operations import HISTORY_TURNS, OPERATIONS, Caller, Operation
from tests.integration.database.talk import Count
from tests.integration.database.wire import wire_to
from tests.support.service import run_service, settings_for

WARMING, TIMES, ATTEMPTS, COUNTS = 5, 4, 5, 15
"""The least of several attempts is the operation's own: what goes on beside it, or takes long, only ever adds."""

_SETTINGS = {
    "LATCHKEY_AGENT": "openai",
    "LATCHKEY_MODEL": "fake",
    "OPENAI_API_KEY": "costs",
    "LATCHKEY_HISTORY_TURNS": str(HISTORY_TURNS),
    "LATCHKEY_REQUESTS_PER_MINUTE": "10000000",
}


class Cost(Struct, frozen=True):
    """Of one operation, once everything is warm. Only what has a wire has round trips."""

    transactions: int
    statements: int
    round_trips: int
    allocations: int


async def costs(database_url: str, model_url: str) -> dict[str, Cost]:
    """Of each operation."""
    async with _counting(database_url) as (url, counted):
        statements = await _measured(url, model_url, lambda me, operation: _said(me, operation, counted))
    allocations = await _measured(database_url, model_url, _allocated)
    return {name: Cost(**statements[name]._asdict(), allocations=allocations[name]) for name in OPERATIONS}


async def _measured(url: str, model_url: str, measure: Callable[[Caller, Operation], Any]) -> dict[str, Any]:
    """What the measure tells of each operation, of one service for all of them."""
    settings = settings_for(url, OPENAI_BASE_URL=model_url, **_SETTINGS)
    async with run_service(settings, validate=False) as service:
        user = service.user(f"user-{uuid4()}")
        me = Caller(service.asgi, user.user_id, user.token)
        await me.settled()
        found = {}
        for name, operation in OPERATIONS.items():
            for _ in range(WARMING):
                await operation(me)
            found[name] = await measure(me, operation)
        return found


async def _said(me: Caller, operation: Operation, counted: Callable[[], Count]) -> Count:
    counts = []
    for _ in range(COUNTS):
        before = counted()
        await operation(me)
        counts.append(counted().since(before))
    return min(counts)


async def _allocated(me: Caller, operation: Operation) -> int:
    totals: list[int] = []
    for _ in range(ATTEMPTS):
        gc.collect()
        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder) / "allocations"
            with memray.Tracker(file, trace_python_allocators=True):
                for _ in range(TIMES):
                    await operation(me)
            totals.append(memray.FileReader(file).metadata.total_allocations)
    return min(totals) // TIMES


@asynccontextmanager
async def _counting(url: str) -> AsyncIterator[tuple[str, Callable[[], Count]]]:
    """The address to use instead, and what was said there so far."""
    if url.startswith("sqlite"):
        heard: list[str] = []
        listen = ("connect", lambda connection, _record: connection.run_async(_hear(heard)))
        event.listen(Pool, *listen)
        yield url, lambda: _count_of(heard)
        event.remove(Pool, *listen)
    else:
        async with wire_to(make_url(url).port or 5432) as wire:
            yield make_url(url).set(port=wire.port).render_as_string(hide_password=False), lambda: wire.count


def _hear(heard: list[str]) -> Callable[[Any], Any]:
    return lambda connection: connection.set_trace_callback(heard.append)


def _count_of(heard: list[str]) -> Count:
    statements = [text for text in heard if not text.startswith("--")]  # those are a trigger's
    return Count(sum(text.startswith(("COMMIT", "ROLLBACK")) for text in statements), len(statements))


if __name__ == "__main__":
    telemetry.configure()
    sys.stdout.buffer.write(msgspec.json.encode(asyncio.run(costs(*sys.argv[1:]))))
