"""Rolling releases: revisions say which releases can use their schema, and migrations wait only briefly for locks."""

import asyncio
import sqlite3
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, closing
from typing import Any

import asyncpg
import pytest
from alembic.script import ScriptDirectory
from sqlalchemy import inspect
from sqlalchemy.ext.asyncio import create_async_engine
from sqlalchemy.pool import NullPool

from latchkey.domain.errors import Unavailable
from latchkey.infrastructure.database import migrations
from latchkey.infrastructure.database.migrations import check, downgrade, upgrade
from latchkey.infrastructure.database.revision import migrations_folder
from latchkey.infrastructure.database.urls import parse
from tests.integration.database.conftest import run_sql

SCRIPTS = list(reversed([*ScriptDirectory(str(migrations_folder())).walk_revisions()]))
REVISIONS = [script.revision for script in SCRIPTS]
COMPATIBLE_WITH = {script.revision: script.module.compatible_with for script in SCRIPTS}
Columns = Mapping[str, Mapping[str, Any]]


def columns_by_table(url: str) -> dict[str, Columns]:
    async def reflect() -> dict[str, Columns]:
        address, connect_args = parse(url)
        engine = create_async_engine(address, connect_args=connect_args, poolclass=NullPool)
        async with engine.connect() as connection:
            tables = await connection.run_sync(lambda sync: inspect(sync).get_multi_columns())
        await engine.dispose()
        return {name: {column["name"]: column for column in columns} for (_, name), columns in tables.items()}

    return asyncio.run(reflect())


def incompatible_changes(before: dict[str, Columns], after: dict[str, Columns]) -> list[str]:
    """What a program of the schema `before` cannot do with the schema `after`."""
    changes = [f"{table} is dropped" for table in before.keys() - after.keys()]
    for table in before.keys() & after.keys():
        old, new = before[table], after[table]
        changes += [f"{table}.{name} is dropped" for name in old.keys() - new.keys()]
        for name in old.keys() & new.keys():
            if str(old[name]["type"]) != str(new[name]["type"]):
                changes.append(f"{table}.{name} has another type")
            if old[name]["nullable"] and not new[name]["nullable"]:
                changes.append(f"{table}.{name} is no longer nullable")
        changes += [
            f"{table}.{name} is needed"
            for name in new.keys() - old.keys()
            if not new[name]["nullable"] and new[name]["default"] is None
        ]
    return changes


def test_compatible_with_is_a_revision_and_never_decreases() -> None:
    assert all(oldest in REVISIONS and oldest <= revision for revision, oldest in COMPATIBLE_WITH.items())
    assert list(COMPATIBLE_WITH.values()) == sorted(COMPATIBLE_WITH.values())


def test_revisions_only_expand_the_schema_of_their_oldest_compatible_release(empty_database_url: str) -> None:
    schemas = {}
    for revision, oldest in COMPATIBLE_WITH.items():
        upgrade(empty_database_url, revision)
        schemas[revision] = columns_by_table(empty_database_url)
        assert incompatible_changes(schemas[oldest], schemas[revision]) == [], revision


def test_incompatible_changes_are_found(database_url: str) -> None:
    """The check of revisions fails for each kind of change that the previous release cannot use."""
    schema = columns_by_table(database_url)
    task = schema["tasks"]
    needed = {**task, "needed": {**task["title"], "name": "needed"}}
    optional = {**task, "optional": task["description"], "with_default": {**task["title"], "default": "''"}}
    without_title = {name: column for name, column in task.items() if name != "title"}
    strict = {**task, "description": {**task["description"], "nullable": False}}
    retyped = {**task, "title": {**task["title"], "type": "INTEGER"}}

    assert incompatible_changes(schema, {**schema, "tasks": optional, "notes": task}) == []
    for changed, text in (
        (needed, "tasks.needed is needed"),
        (without_title, "tasks.title is dropped"),
        (strict, "tasks.description is no longer nullable"),
        (retyped, "tasks.title has another type"),
    ):
        assert incompatible_changes(schema, {**schema, "tasks": changed}) == [text]
    assert incompatible_changes(schema, {}) != []


@pytest.mark.parametrize("revision", REVISIONS)
def test_migration_stores_the_oldest_compatible_release(empty_database_url: str, revision: str) -> None:
    upgrade(empty_database_url, revision)
    query = "SELECT version_num, compatible_with FROM alembic_version"
    if empty_database_url.startswith("postgresql"):
        [row] = [tuple(row.values()) for row in run_sql(empty_database_url, query)]
    else:
        with closing(sqlite3.connect(empty_database_url.partition(":///")[2])) as connection:
            [row] = connection.execute(query).fetchall()
    assert row == (revision, COMPATIBLE_WITH[revision])


@asynccontextmanager
async def locked_table(url: str, table: str) -> AsyncIterator[Any]:
    """Hold a lock on a table, like a `pg_dump` that runs."""
    connection = await asyncpg.connect(url)
    try:
        await connection.execute(f"BEGIN; LOCK TABLE {table} IN ACCESS SHARE MODE")
        yield connection
    finally:
        await connection.close()


async def test_migration_waiting_for_lock_times_out_and_is_retried(
    postgresql_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Meanwhile, statements that need the table wait for the timeout of one attempt at most."""
    monkeypatch.setattr(migrations, "LOCK_TIMEOUT_MS", 200)
    monkeypatch.setattr(migrations, "_LOCK_PAUSE_S", 0.2)
    async with locked_table(postgresql_url, "allowances") as holder:
        migrating = asyncio.create_task(asyncio.to_thread(downgrade, postgresql_url, "0004"))
        reader = await asyncpg.connect(postgresql_url, command_timeout=5)
        delays: list[float] = []
        while len(delays) < 100 and not migrating.done():
            started = time.monotonic()
            await reader.execute("BEGIN; SET LOCAL app.user_id = 'me'; SELECT count(*) FROM allowances; COMMIT")
            delays.append(time.monotonic() - started)
        await reader.close()
        assert not migrating.done()
        await holder.execute("COMMIT")
        await migrating

    assert max(delays) < 2
    assert "allowances" not in await asyncio.to_thread(columns_by_table, postgresql_url)


async def test_migration_gives_up_after_ten_lock_timeouts(postgresql_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(migrations, "LOCK_TIMEOUT_MS", 20)
    monkeypatch.setattr(migrations, "_LOCK_PAUSE_S", 0.01)
    async with locked_table(postgresql_url, "allowances"):
        with pytest.raises(Unavailable, match="Another transaction holds a lock that the migration needs"):
            await asyncio.to_thread(downgrade, postgresql_url, "0004")
    assert "allowances" in await asyncio.to_thread(columns_by_table, postgresql_url)


def test_full_text_and_foreign_tables_of_other_programs_are_left_alone(
    request: pytest.FixtureRequest, database_url: str
) -> None:
    """Autogeneration would propose to drop SQLite's shadow tables of a full-text index."""
    if database_url.startswith("postgresql"):
        superuser_url = request.getfixturevalue("postgresql_server").superuser_url(database_url.rpartition("/")[2])
        run_sql(
            superuser_url,
            "CREATE FOREIGN DATA WRAPPER nothing",
            "CREATE SERVER elsewhere FOREIGN DATA WRAPPER nothing",
            "CREATE FOREIGN TABLE notes_elsewhere (body TEXT) SERVER elsewhere",
            "CREATE TABLE notes (body TEXT, words TSVECTOR)",
            "CREATE INDEX ix_notes_words ON notes USING gin (words)",
        )
    else:
        with closing(sqlite3.connect(database_url.partition(":///")[2])) as connection:
            connection.execute("CREATE VIRTUAL TABLE notes USING fts5(body)")

    check(database_url)
    downgrade(database_url, "base")
    assert "notes" in columns_by_table(database_url)
