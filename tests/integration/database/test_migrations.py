"""Migrations: every revision up and down, and the same tables as in the code at the head."""

import asyncio
import sqlite3
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from alembic.script import ScriptDirectory
from sqlalchemy import Row, inspect, text
from sqlalchemy.ext.asyncio import create_async_engine
from sqlalchemy.pool import NullPool

from latchkey.bootstrap.registry import BUILT_IN
from latchkey.domain.errors import Unavailable
from latchkey.infrastructure.database.app_schema import AppSchema
from latchkey.infrastructure.database.migrations import check, downgrade, upgrade
from latchkey.infrastructure.database.revision import head, migrations_folder, read_schema_version
from latchkey.infrastructure.database.schema import TABLE_NAMES, metadata
from latchkey.infrastructure.database.sql.engine import create_engine
from latchkey.infrastructure.database.startup_checks import verify
from latchkey.infrastructure.database.urls import parse
from tests.integration.database.conftest import run_sql

SCRIPTS = list(reversed([*ScriptDirectory(str(migrations_folder())).walk_revisions()]))
REVISIONS = [script.revision for script in SCRIPTS]
ID = "019b7c5f0f6e7000800000000000000a"
ANOTHER_ID = ID[:-1] + "b"
MOMENT = "2026-01-02 03:04:05.678901+00:00"


def tables(url: str) -> set[str]:
    async def look() -> set[str]:
        address, connect_args = parse(url)
        engine = create_async_engine(address, connect_args=connect_args, poolclass=NullPool)
        async with engine.connect() as connection:
            names = await connection.run_sync(lambda sync: inspect(sync).get_table_names())
        await engine.dispose()
        return set(names)

    return asyncio.run(look())


def is_usable(url: str) -> bool:
    async def look() -> bool:
        engine = create_engine(url)
        try:
            (await read_schema_version(engine)).check_usable()
        except Unavailable:
            return False
        else:
            return True
        finally:
            await engine.dispose()

    return asyncio.run(look())


async def _verify(url: str) -> None:
    engine = create_engine(url)
    await verify(engine)
    await engine.dispose()


def test_head_read_without_alembic_equals_alembic_head() -> None:
    assert head() == REVISIONS[-1]


def test_migrations_create_the_tables_of_the_schema(database_url: str) -> None:
    check(database_url)
    assert tables(database_url) == {*TABLE_NAMES, "alembic_version"}


def test_migrations_create_the_tables_of_built_in_apps(database_url: str, tmp_path: Path) -> None:
    of_apps = tuple(table for app in BUILT_IN for table in app.schema.entities)

    assert [table.name for table in of_apps] == [name for name in TABLE_NAMES if name not in metadata.tables]
    check(database_url, AppSchema(of_apps, migrations=tmp_path))


def test_every_migration_upgrades_downgrades_and_upgrades_again(empty_database_url: str) -> None:
    """One revision at a time."""
    for before, revision in zip(["base", *REVISIONS], REVISIONS, strict=False):
        upgrade(empty_database_url, revision)
        downgrade(empty_database_url, before)
        upgrade(empty_database_url, revision)

    check(empty_database_url)
    asyncio.run(_verify(empty_database_url))
    downgrade(empty_database_url, "base")
    assert tables(empty_database_url) == {"alembic_version"}


TURN_OF_FIRST_RELEASE = f"""
INSERT INTO conversations (user_id, id, last_seq, created_at, updated_at)
    VALUES ('me', '{ID}', 0, '{MOMENT}', '{MOMENT}');
INSERT INTO turns (user_id, id, conversation_id, status, agent, requests, input_tokens, output_tokens, started_at,
    lease_until) VALUES ('me', '{ID}', '{ID}', 'completed', 'rehearsal', 1, 2, 3, '{MOMENT}', '{MOMENT}');
INSERT INTO tool_calls (user_id, turn_id, id, name, arguments, result, is_error, started_at, duration_ms)
    VALUES ('me', '{ID}', '{ID}', 'add_task', '{{}}', '{{}}', false, '{MOMENT}', 3);
"""


def test_rows_of_first_release_survive_upgrade_and_downgrade(empty_database_url: str) -> None:
    """Up to the head and back."""
    upgrade(empty_database_url, REVISIONS[0])
    _run_sql(empty_database_url, TURN_OF_FIRST_RELEASE)
    for migrate, revision in ((upgrade, REVISIONS[-1]), (downgrade, REVISIONS[0])):
        migrate(empty_database_url, revision)
        (call,) = asyncio.run(_calls(empty_database_url))
        assert (call.name, call.arguments, call.duration_ms) == ("add_task", "{}", 3)


async def _calls(url: str) -> Sequence[Row[Any]]:
    return await _rows(url, "SELECT name, arguments, duration_ms FROM tool_calls")


async def _rows(url: str, query: str) -> Sequence[Row[Any]]:
    address, connect_args = parse(url)
    engine = create_async_engine(address, connect_args=connect_args, poolclass=NullPool)
    async with engine.connect() as connection:
        found = await connection.execute(text(query))
    await engine.dispose()
    return found.all()


TURNS_OF_0003 = f"""
INSERT INTO conversations (user_id, id, last_seq, created_at, updated_at)
    VALUES ('me', '{ID}', 1, '{MOMENT}', '{MOMENT}');
INSERT INTO turns (user_id, id, conversation_id, status, agent, requests, input_tokens, output_tokens, started_at,
    lease_until) VALUES ('me', '{ID}', '{ID}', 'running', 'rehearsal', 1, 2, 3, '{MOMENT}', '{MOMENT}');
INSERT INTO messages (user_id, id, conversation_id, turn_id, seq, role, content, call_count, created_at)
    VALUES ('me', '{ID}', '{ID}', '{ID}', 1, 'user', 'Buy milk', 0, '{MOMENT}');
INSERT INTO tool_calls (user_id, turn_id, id, call_id, name, arguments, result, is_error, started_at, duration_ms)
    VALUES ('me', '{ID}', '{ID}', 'call-1', 'add_task', '{{}}', '{{}}', false, '{MOMENT}', 3);
"""
ANNOUNCED = f"""
INSERT INTO tool_calls (user_id, turn_id, id, call_id, name, arguments, result, is_error, started_at, duration_ms)
    VALUES ('me', '{ID}', '{ANOTHER_ID}', 'call-2', 'add_task', '{{}}', NULL, true, '{MOMENT}', 0);
INSERT INTO turn_events (user_id, turn_id, seq, name, body) VALUES ('me', '{ID}', 1, 'turn.started', '{{}}');
"""
TURN = "SELECT status, agent, requests, input_tokens, output_tokens FROM turns"
SINCE_0004 = "SELECT last_event, told, retry_after, idempotency_key, fingerprint, request_id FROM turns"
CALLS = "SELECT call_id, result FROM tool_calls ORDER BY call_id"
MESSAGES = "SELECT seq, content FROM messages"


def select(url: str, query: str) -> list[tuple[Any, ...]]:
    return [tuple(row) for row in asyncio.run(_rows(url, query))]


def test_turns_survive_upgrade_to_0004_and_downgrade(empty_database_url: str) -> None:
    """They have no events and no key. After the downgrade, a missing result is JSON null."""
    url = empty_database_url
    upgrade(url, "0003")
    _run_sql(url, TURNS_OF_0003)
    upgrade(url, "0004")

    assert select(url, TURN) == [("running", "rehearsal", 1, 2, 3)]
    assert select(url, SINCE_0004) == [(0, 0, None, None, None, None)]
    assert select(url, CALLS) == [("call-1", "{}")]
    assert select(url, MESSAGES) == [(1, "Buy milk")]

    _run_sql(url, ANNOUNCED)
    downgrade(url, "0003")

    assert select(url, TURN) == [("running", "rehearsal", 1, 2, 3)]
    assert select(url, CALLS) == [("call-1", "{}"), ("call-2", "null")]
    assert select(url, MESSAGES) == [(1, "Buy milk")]
    assert "turn_events" not in tables(url)


def test_waiting_turn_is_interrupted_by_a_downgrade(empty_database_url: str) -> None:
    """Earlier releases do not know the status."""
    upgrade(empty_database_url, "0016")
    _run_sql(empty_database_url, TURNS_OF_0003.replace("'running'", "'waiting'"))

    downgrade(empty_database_url, "0015")

    assert select(empty_database_url, "SELECT status, finished_at = started_at FROM turns") == [("interrupted", True)]


def test_migrations_have_one_head() -> None:
    assert ScriptDirectory(str(migrations_folder())).get_heads() == REVISIONS[-1:]


def test_migrations_folder_is_at_the_top_of_the_repository() -> None:
    assert migrations_folder() == Path(__file__).parents[3] / "migrations"


def test_repeated_upgrade_changes_nothing(database_url: str) -> None:
    upgrade(database_url)
    check(database_url)


def test_tables_of_other_programs_are_left_alone(empty_database_url: str) -> None:
    upgrade(empty_database_url)
    _run_sql(empty_database_url, "CREATE TABLE notes_of_another_program (note TEXT)")

    check(empty_database_url)
    downgrade(empty_database_url, "base")

    assert tables(empty_database_url) == {"alembic_version", "notes_of_another_program"}


def test_schema_without_migration_is_not_usable(empty_database_url: str) -> None:
    """Neither is an empty database nor a downgraded one."""
    assert not is_usable(empty_database_url)
    upgrade(empty_database_url)
    assert is_usable(empty_database_url)
    downgrade(empty_database_url, "base")
    assert not is_usable(empty_database_url)


@pytest.mark.parametrize(
    ("compatible_with", "expected"), [(head(), True), ("0001", True), ("9999", False), (None, False)]
)
def test_newer_schema_is_usable_if_compatible_with_this_release(
    database_url: str, compatible_with: str | None, expected: object
) -> None:
    value = f"'{compatible_with}'" if compatible_with else "NULL"
    _run_sql(database_url, f"UPDATE alembic_version SET version_num = '9999', compatible_with = {value}")
    assert is_usable(database_url) == expected


def test_schema_of_release_without_compatibility_column_is_usable_and_gets_the_column(database_url: str) -> None:
    _run_sql(database_url, "ALTER TABLE alembic_version DROP COLUMN compatible_with")
    assert is_usable(database_url)
    upgrade(database_url)
    query = "SELECT version_num, compatible_with FROM alembic_version"
    assert select(database_url, query) == [(head(), SCRIPTS[-1].module.compatible_with)]


def _run_sql(url: str, script: str) -> None:
    if url.startswith("postgresql"):
        run_sql(url, *(statement for statement in script.split(";") if statement.strip()))
        return
    with sqlite3.connect(url.partition(":///")[2]) as file:
        file.executescript(script)
    file.close()


def test_failed_migration_is_rolled_back(empty_database_url: str) -> None:
    """It fails because a table of that name exists."""
    _run_sql(empty_database_url, "CREATE TABLE context_tokens (note TEXT)")

    with pytest.raises(Unavailable, match=r"Another program has a table of the same name: .* already exists"):
        upgrade(empty_database_url)

    assert tables(empty_database_url) == {"context_tokens"}
