"""A server whose roles a test may spoil, and a way to say plain SQL to a database."""

import asyncio
from collections.abc import Iterator
from pathlib import Path

import asyncpg
import pytest

from tests.postgresql import PostgreSQL, postgresql


@pytest.fixture(scope="session")
def own_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PostgreSQL]:
    """Roles belong to a whole server, and others may be at work on the one that the other tests use."""
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("TEST_DATABASE_URL", raising=False)
        with postgresql(tmp_path_factory.mktemp("own") / "log") as server:
            yield server


@pytest.fixture
def superuser_url(postgresql_server: PostgreSQL, postgresql_url: str) -> str:
    """The database of `postgresql_url` as its server's superuser reaches it."""
    return postgresql_server.superuser_url(postgresql_url.rpartition("/")[2])


@pytest.fixture
def sqlite_path(sqlite_url: str) -> Path:
    return Path(sqlite_url.partition(":///")[2])


def say(url: str, *statements: str) -> list[asyncpg.Record]:
    """The rows of the last statement."""
    return asyncio.run(say_async(url, *statements))


async def say_async(url: str, *statements: str) -> list[asyncpg.Record]:
    connection = await asyncpg.connect(url)
    try:
        return [await connection.fetch(statement) for statement in statements][-1]
    finally:
        await connection.close()
