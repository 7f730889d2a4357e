"""Counts the database traffic of each operation: `python -m tests.costs.measure DATABASE_URL MODEL_URL`, as JSON.

A separate program, so that nothing that ran before influences the counts. On PostgreSQL statements and round trips are
counted on the connection; on SQLite statements are counted by the driver's trace callback.
"""

import asyncio
import sqlite3
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import timedelta
from functools import partial
from typing import Any
from unittest import mock
from uuid import uuid4

import msgspec
from msgspec import Struct
from sqlalchemy import make_url

from latchkey.bootstrap.composition import create_asgi
from latchkey.config import Settings
from latchkey.domain.credentials import UserId
from latchkey.infrastructure.identity.shared_secret import SharedSecret
from latchkey.infrastructure.telemetry import logging as telemetry
from latchkey.testing.service import run_lifespan
from tests.costs.operations import HISTORY_TURNS, OPERATIONS, AsgiUser, Operation
from tests.integration.database.postgresql_traffic import Count
from tests.integration.database.tcp_proxy import proxy_to

SECRET = "a secret of thirty-two bytes or more"
WARM_UP, RUNS = 5, 15
"""The cost of an operation is the smallest count of several runs: concurrent background work only adds to it."""

_SETTINGS = {
    "LATCHKEY_AUTH_SECRET": SECRET,
    "LATCHKEY_AGENT": "openai",
    "LATCHKEY_MODEL": "fake",
    "OPENAI_API_KEY": "costs",
    "LATCHKEY_HISTORY_TURNS": str(HISTORY_TURNS),
    "LATCHKEY_REQUESTS_PER_MINUTE": "10000000",
}

Counter = Callable[[], Count]


class Cost(Struct, frozen=True):
    """The cost of one warm operation. SQLite has no round trips."""

    transactions: int
    statements: int
    round_trips: int


async def measure(database_url: str, model_url: str) -> dict[str, Cost]:
    """The cost of each operation, by its name."""
    async with _counting(database_url) as (url, counter):
        variables = {"LATCHKEY_DATABASE_URL": url, "OPENAI_BASE_URL": model_url, **_SETTINGS}
        app: Any = create_asgi(Settings.read(variables), "127.0.0.1", 8000)
        async with run_lifespan(app):
            user_id = UserId(f"user-{uuid4()}")
            signer = SharedSecret(SECRET.encode(), "latchkey", "latchkey")
            user = AsgiUser(app, user_id, signer.sign(user_id, timedelta(hours=1)))
            await user.create_data()
            return {name: await _cost(user, operation, counter) for name, operation in OPERATIONS.items()}


async def _cost(user: AsgiUser, operation: Operation, counter: Counter) -> Cost:
    for _ in range(WARM_UP):
        await operation(user)
    counts = []
    for _ in range(RUNS):
        before = counter()
        await operation(user)
        counts.append(counter().since(before))
    return Cost(**min(counts)._asdict())


@asynccontextmanager
async def _counting(url: str) -> AsyncIterator[tuple[str, Counter]]:
    """The URL that the service must use, and a function that returns the traffic so far."""
    if url.startswith("sqlite"):
        statements: list[str] = []
        with mock.patch("sqlite3.connect", partial(_connect_traced, sqlite3.connect, statements)):
            yield url, lambda: _count(statements)
    else:
        async with proxy_to(make_url(url).port or 5432) as proxy:
            yield make_url(url).set(port=proxy.port).render_as_string(hide_password=False), lambda: proxy.count


def _connect_traced(
    connect: Callable[..., sqlite3.Connection], statements: list[str], *args: Any, **options: Any
) -> sqlite3.Connection:
    connection = connect(*args, **options)
    connection.set_trace_callback(statements.append)
    return connection


def _count(trace: list[str]) -> Count:
    statements = [text for text in trace if not text.startswith("--")]  # a comment marks a statement of a trigger
    return Count(sum(text.startswith(("COMMIT", "ROLLBACK")) for text in statements), len(statements))


if __name__ == "__main__":
    telemetry.configure()
    sys.stdout.buffer.write(msgspec.json.encode(asyncio.run(measure(*sys.argv[1:]))))
