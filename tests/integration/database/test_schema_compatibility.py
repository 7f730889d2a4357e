"""Rolling releases: revisions say which releases can use their schema, and migrations wait only briefly for locks."""

import asyncio
import sqlite3
import time
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager, closing
from typing import Any, NamedTuple

import asyncpg
import pytest
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, Inspector, Integer, String, inspect
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


class TableSchema(NamedTuple):
    """Columns by name, and the columns of each constraint by its definition. A check has no columns."""

    columns: Columns
    constraints: Mapping[str, frozenset[str]]


def reflect(url: str) -> dict[str, TableSchema]:
    async def reflect_tables() -> dict[str, TableSchema]:
        address, connect_args = parse(url)
        engine = create_async_engine(address, connect_args=connect_args, poolclass=NullPool)
        async with engine.connect() as connection:
            tables = await connection.run_sync(_reflect)
        await engine.dispose()
        return tables

    return asyncio.run(reflect_tables())


def _reflect(connection: Connection) -> dict[str, TableSchema]:
    inspector = inspect(connection)
    return {
        name: TableSchema(
            {column["name"]: column for column in inspector.get_columns(name)}, dict(_constraints(inspector, name))
        )
        for name in inspector.get_table_names()
    }


def _constraints(inspector: Inspector, table: str) -> Iterator[tuple[str, frozenset[str]]]:
    for unique in inspector.get_unique_constraints(table):
        yield _definition("unique", unique["column_names"])
    for index in inspector.get_indexes(table):
        if index["unique"]:
            where = [str(value) for key, value in index.get("dialect_options", {}).items() if key.endswith("_where")]
            yield _definition("unique", [name or "?" for name in index["column_names"]], *where)
    for key in inspector.get_foreign_keys(table):
        referred = f"{key['referred_table']}{sorted(key['referred_columns'])} {key.get('options')}"
        yield _definition("foreign key", key["constrained_columns"], referred)
    yield _definition("primary key", inspector.get_pk_constraint(table)["constrained_columns"])
    for rule in inspector.get_check_constraints(table):
        yield _definition("check", [], rule["sqltext"])


def _definition(kind: str, columns: list[str], *details: str) -> tuple[str, frozenset[str]]:
    return " ".join([kind, *columns, *details]), frozenset(columns)


def run_statements(url: str, *statements: str) -> None:
    async def run() -> None:
        address, connect_args = parse(url)
        engine = create_async_engine(address, connect_args=connect_args, poolclass=NullPool)
        async with engine.begin() as connection:
            for statement in statements:
                await connection.exec_driver_sql(statement)
        await engine.dispose()

    asyncio.run(run())


def incompatible_changes(before: dict[str, TableSchema], after: dict[str, TableSchema]) -> list[str]:
    """What a program of the schema `before` cannot do with the schema `after`."""
    changes = [f"{table} is dropped" for table in before.keys() - after.keys()]
    for table in before.keys() & after.keys():
        old, new = before[table], after[table]
        changes += [f"{table}{change}" for change in _column_changes(old.columns, new.columns)]
        added = {name: column for name, column in new.columns.items() if name not in old.columns}
        null = {name for name, column in added.items() if column["nullable"] and column["default"] is None}
        changes += [
            f"{table} has a new constraint: {definition}"
            for definition, columns in new.constraints.items()
            # The program leaves these columns NULL, which no key refuses.
            if definition not in old.constraints and columns.isdisjoint(null)
        ]
    return changes


def _column_changes(old: Columns, new: Columns) -> Iterator[str]:
    for name in old.keys() - new.keys():
        yield f".{name} is dropped"
    for name in old.keys() & new.keys():
        if repr(old[name]["type"]) != repr(new[name]["type"]):
            yield f".{name} has another type"
        if old[name]["nullable"] and not new[name]["nullable"]:
            yield f".{name} is no longer nullable"
        if old[name]["default"] is not None and new[name]["default"] is None and not new[name]["nullable"]:
            yield f".{name} has no default"
    for name in new.keys() - old.keys():
        if not new[name]["nullable"] and new[name]["default"] is None:
            yield f".{name} is needed"


def test_compatible_with_is_a_revision_and_never_decreases() -> None:
    assert all(oldest in REVISIONS and oldest <= revision for revision, oldest in COMPATIBLE_WITH.items())
    assert list(COMPATIBLE_WITH.values()) == sorted(COMPATIBLE_WITH.values())


def test_revisions_only_expand_the_schema_of_their_oldest_compatible_release(empty_database_url: str) -> None:
    schemas = {}
    for revision, oldest in COMPATIBLE_WITH.items():
        upgrade(empty_database_url, revision)
        schemas[revision] = reflect(empty_database_url)
        assert incompatible_changes(schemas[oldest], schemas[revision]) == [], revision


def test_incompatible_changes_are_found(database_url: str) -> None:
    """The check of revisions fails for each kind of change that the previous release cannot use."""
    schema = reflect(database_url)
    task, keys = schema["tasks"]
    turn = schema["turns"].columns
    needed = {**task, "needed": {**task["title"], "name": "needed"}}
    optional = {**task, "optional": task["description"], "with_default": {**task["title"], "default": "''"}}
    without_title = {name: column for name, column in task.items() if name != "title"}
    strict = {**task, "description": {**task["description"], "nullable": False}}
    retyped = {**task, "title": {**task["title"], "type": Integer()}}
    shorter = {**task, "status": {**task["status"], "type": String(8)}}
    without_default = {**turn, "calls": {**turn["calls"], "default": None}}

    assert incompatible_changes(schema, {**schema, "books": TableSchema(task, keys)}) == []
    assert incompatible_changes(schema, {**schema, "tasks": TableSchema(optional, keys)}) == []
    for table, changed, text in (
        ("tasks", needed, "tasks.needed is needed"),
        ("tasks", without_title, "tasks.title is dropped"),
        ("tasks", strict, "tasks.description is no longer nullable"),
        ("tasks", retyped, "tasks.title has another type"),
        ("tasks", shorter, "tasks.status has another type"),
        ("turns", without_default, "turns.calls has no default"),
    ):
        replaced = TableSchema(changed, schema[table].constraints)
        assert incompatible_changes(schema, {**schema, table: replaced}) == [text]
    assert incompatible_changes(schema, {}) != []


@pytest.mark.parametrize(
    ("statement", "added"),
    [
        ("CREATE UNIQUE INDEX uq_new ON tasks (user_id, title)", ["unique user_id title"]),
        (
            "CREATE UNIQUE INDEX uq_new ON tasks (user_id, title) WHERE title <> ''",
            ["unique user_id title title <> ''"],
        ),
        ("CREATE UNIQUE INDEX uq_new ON tasks (user_id, color)", []),
        ("CREATE INDEX ix_new ON tasks (user_id, title)", []),
    ],
)
def test_new_unique_index_is_an_incompatible_change(database_url: str, statement: str, added: list[str]) -> None:
    """Unless it has a new column, which the previous release leaves NULL."""
    before = reflect(database_url)
    run_statements(database_url, "ALTER TABLE tasks ADD COLUMN color TEXT", statement)

    changes = incompatible_changes(before, reflect(database_url))

    assert [change.replace("(", "").replace(")", "").replace("::text", "") for change in changes] == [
        f"tasks has a new constraint: {definition}" for definition in added
    ]


@pytest.mark.parametrize(
    ("statement", "kind"),
    [
        ("ALTER TABLE tasks ADD UNIQUE (user_id, title)", "unique"),
        ("ALTER TABLE tasks ADD CHECK (version > 0)", "check"),
        ("ALTER TABLE tasks ADD FOREIGN KEY (user_id, conversation_id) REFERENCES conversations", "foreign key"),
        ("ALTER TABLE tasks DROP CONSTRAINT pk_tasks, ADD PRIMARY KEY (id)", "primary key"),
    ],
)
def test_new_constraint_is_an_incompatible_change(postgresql_url: str, statement: str, kind: str) -> None:
    """SQLite cannot add a constraint to a table."""
    before = reflect(postgresql_url)
    run_statements(postgresql_url, statement)

    [change] = incompatible_changes(before, reflect(postgresql_url))
    assert change.startswith(f"tasks has a new constraint: {kind}")


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
    assert "allowances" not in await asyncio.to_thread(reflect, postgresql_url)


async def test_migration_gives_up_after_ten_lock_timeouts(postgresql_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(migrations, "LOCK_TIMEOUT_MS", 20)
    monkeypatch.setattr(migrations, "_LOCK_PAUSE_S", 0.01)
    async with locked_table(postgresql_url, "allowances"):
        with pytest.raises(Unavailable, match="Another transaction holds a lock that the migration needs"):
            await asyncio.to_thread(downgrade, postgresql_url, "0004")
    assert "allowances" in await asyncio.to_thread(reflect, postgresql_url)


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
            "CREATE FOREIGN TABLE books_elsewhere (body TEXT) SERVER elsewhere",
            "CREATE TABLE books (body TEXT, words TSVECTOR)",
            "CREATE INDEX ix_books_words ON books USING gin (words)",
        )
    else:
        with closing(sqlite3.connect(database_url.partition(":///")[2])) as connection:
            connection.execute("CREATE VIRTUAL TABLE books USING fts5(body)")

    check(database_url)
    downgrade(database_url, "base")
    assert "books" in reflect(database_url)
