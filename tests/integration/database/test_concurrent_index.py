"""Revisions that make an index concurrently: no transaction, one process at a time, and repaired if interrupted."""

import asyncio
import shutil
from collections.abc import AsyncIterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import asynccontextmanager
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import asyncpg
import pytest

from latchkey.domain.errors import Unavailable
from latchkey.infrastructure.database import migrations
from latchkey.infrastructure.database.migrations import downgrade, upgrade
from latchkey.infrastructure.database.revision import RevisionHistory, head, migrations_folder
from tests.integration.database.conftest import run_sql, run_sql_async
from tests.integration.database.test_schema_compatibility import reflect

NEXT, LAST = "9998", "9999"
CONCURRENT = '''"""Makes an index concurrently, between two other changes."""

import sqlalchemy as sa
from alembic import op

from latchkey.infrastructure.database.concurrent_index import create_index_concurrently, drop_index_concurrently

revision = "9998"
down_revision = "{head}"
branch_labels = None
depends_on = None
compatible_with = "{head}"


def upgrade() -> None:
    create_index_concurrently("ix_tasks_color", "tasks", ["user_id", "title"])


def downgrade() -> None:
    drop_index_concurrently("ix_tasks_color", "tasks")
'''
PLAIN = '''"""A revision in a transaction, after it."""

import sqlalchemy as sa
from alembic import op

revision = "9999"
down_revision = "9998"
branch_labels = None
depends_on = None
compatible_with = "{head}"


def upgrade() -> None:
    op.add_column("tasks", sa.Column("color", sa.Text()))


def downgrade() -> None:
    op.drop_column("tasks", "color")
'''
INDEX = "SELECT indisvalid FROM pg_index WHERE indexrelid = to_regclass('ix_tasks_color')"
REVISION = "SELECT version_num FROM alembic_version"
LOCKS = """
SELECT count(*) FROM pg_locks JOIN pg_database ON pg_database.oid = database
WHERE locktype = 'advisory' AND datname = current_database()
"""
TERMINATE = """
SELECT pg_terminate_backend(pid) FROM pg_stat_activity
WHERE query LIKE 'CREATE INDEX CONCURRENTLY%' AND datname = current_database()
"""


@pytest.fixture(autouse=True)
def next_release(
    postgresql_template: str, sqlite_template: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Migrations with two revisions more than in the templates of databases."""
    folder = tmp_path / "migrations"
    shutil.copytree(migrations_folder(), folder)
    (folder / "versions" / f"{NEXT}_index.py").write_text(CONCURRENT.format(head=head()))
    (folder / "versions" / f"{LAST}_column.py").write_text(PLAIN.format(head=head()))
    history = RevisionHistory(folder / "versions", "alembic_version", LAST)
    monkeypatch.setattr(migrations, "migrations_folder", lambda: folder)
    monkeypatch.setattr(migrations, "built_in_history", lambda: history)


def test_concurrent_index_is_made_and_dropped(database_url: str) -> None:
    """From the schema of this release and from an empty one, with a revision in a transaction before and after it."""
    upgrade(database_url)
    assert "color" in reflect(database_url)["tasks"].columns
    if database_url.startswith("postgresql"):
        assert [row["indisvalid"] for row in run_sql(database_url, INDEX)] == [True]
        assert run_sql(database_url, LOCKS)[0]["count"] == 0

    downgrade(database_url, head())
    assert "color" not in reflect(database_url)["tasks"].columns
    if database_url.startswith("postgresql"):
        assert run_sql(database_url, INDEX) == []
    upgrade(database_url)


def test_concurrent_index_from_an_empty_database(empty_database_url: str) -> None:
    upgrade(empty_database_url)

    assert "color" in reflect(empty_database_url)["tasks"].columns


@asynccontextmanager
async def old_transaction(url: str) -> AsyncIterator[None]:
    """A transaction for whose end the index waits, like a `pg_dump`."""
    connection = await asyncpg.connect(url)
    try:
        await connection.execute("BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT FROM alembic_version")
        yield
    finally:
        await connection.close()


async def wait_for_index(url: str, *migrating: asyncio.Future[Any]) -> None:
    while not await run_sql_async(url, INDEX):
        for task in migrating:
            if task.done():
                task.result()


async def test_writes_do_not_wait_for_concurrent_index(postgresql_url: str) -> None:
    """It waits for earlier transactions. Another process that migrates waits for it, without a deadlock."""
    loop, fork = asyncio.get_running_loop(), get_context("fork")
    # Processes, not threads: Alembic has one context in each process.
    with ProcessPoolExecutor(2, fork) as processes:
        async with old_transaction(postgresql_url):
            migrating = [loop.run_in_executor(processes, upgrade, postgresql_url) for _ in range(2)]
            await wait_for_index(postgresql_url, *migrating)
            writer = await asyncpg.connect(postgresql_url, command_timeout=5)
            for _ in range(20):
                await writer.execute("BEGIN; SET LOCAL app.user_id = 'me'; UPDATE tasks SET version = version; COMMIT")
            await writer.close()
            assert not any(task.done() for task in migrating)
        await asyncio.gather(*migrating)


async def test_interrupted_concurrent_index_is_replaced_by_next_migration(postgresql_url: str) -> None:
    """The server process of the migration is terminated, which leaves an invalid index."""
    async with old_transaction(postgresql_url):
        migrating = asyncio.create_task(asyncio.to_thread(upgrade, postgresql_url))
        await wait_for_index(postgresql_url, migrating)
        assert len(await run_sql_async(postgresql_url, TERMINATE)) == 1
        with pytest.raises(Unavailable):
            await migrating
    assert [row["indisvalid"] for row in await run_sql_async(postgresql_url, INDEX)] == [False]
    assert [row["version_num"] for row in await run_sql_async(postgresql_url, REVISION)] == [head()]

    await asyncio.to_thread(upgrade, postgresql_url)

    assert [row["version_num"] for row in await run_sql_async(postgresql_url, REVISION)] == [LAST]
    assert [row["indisvalid"] for row in await run_sql_async(postgresql_url, INDEX)] == [True]


def test_concurrent_index_behind_transaction_pooler_is_refused(pgbouncer_url: str, postgresql_url: str) -> None:
    with pytest.raises(Unavailable, match="pooler in transaction mode: run `latchkey migrate`"):
        upgrade(pgbouncer_url)

    assert run_sql(postgresql_url, LOCKS)[0]["count"] == 0
    upgrade(postgresql_url)
