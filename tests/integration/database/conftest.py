"""A PostgreSQL server whose roles a test may change, and plain SQL for tests."""

import asyncio
from collections.abc import Iterator
from pathlib import Path

import asyncpg
import pytest

from latchkey.testing.postgresql import PostgreSQL, postgresql


@pytest.fixture(scope="session")
def own_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PostgreSQL]:
    """Roles belong to a server, and other tests use the shared one at the same time."""
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("TEST_DATABASE_URL", raising=False)
        with postgresql(tmp_path_factory.mktemp("own") / "log") as server:
            yield server


@pytest.fixture
def superuser_url(postgresql_server: PostgreSQL, postgresql_url: str) -> str:
    """The URL of the database of `postgresql_url` for the superuser."""
    return postgresql_server.superuser_url(postgresql_url.rpartition("/")[2])


@pytest.fixture
def sqlite_path(sqlite_url: str) -> Path:
    return Path(sqlite_url.partition(":///")[2])


def run_sql(url: str, *statements: str) -> list[asyncpg.Record]:
    """Run the statements and return the rows of the last one."""
    return asyncio.run(run_sql_async(url, *statements))


async def run_sql_async(url: str, *statements: str) -> list[asyncpg.Record]:
    connection = await asyncpg.connect(url)
    try:
        return [await connection.fetch(statement) for statement in statements][-1]
    finally:
        await connection.close()
