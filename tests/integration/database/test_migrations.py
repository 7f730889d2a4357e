"""The schema's history: every step of it up and down, and the tables of the code at its end."""

import asyncio
import sqlite3
from pathlib import Path

import pytest
from alembic.script import ScriptDirectory
from sqlalchemy import inspect
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import create_async_engine
from sqlalchemy.pool import NullPool

from latchkey.infrastructure.database.engine import create_engine
from latchkey.infrastructure.database.isolation import verify
from latchkey.infrastructure.database.migration import check, downgrade, is_at_head, scripts, upgrade
from latchkey.infrastructure.database.tables import metadata
from latchkey.infrastructure.database.urls import parse
from tests.integration.database.conftest import say

REVISIONS = [script.revision for script in reversed([*ScriptDirectory(str(scripts())).walk_revisions()])]


def tables(url: str) -> set[str]:
    async def look() -> set[str]:
        address, connect_args = parse(url)
        engine = create_async_engine(address, connect_args=connect_args, poolclass=NullPool)
        async with engine.connect() as connection:
            names = await connection.run_sync(lambda sync: inspect(sync).get_table_names())
        await engine.dispose()
        return set(names)

    return asyncio.run(look())


def at_head(url: str) -> bool:
    async def look() -> bool:
        engine = create_engine(url)
        try:
            return await is_at_head(engine)
        finally:
            await engine.dispose()

    return asyncio.run(look())


async def _verify(url: str) -> None:
    engine = create_engine(url)
    await verify(engine)
    await engine.dispose()


def test_the_history_makes_the_tables_that_the_code_has(database_url: str) -> None:
    check(database_url)
    assert tables(database_url) == {*metadata.tables, "alembic_version"}


def test_every_step_can_be_taken_back_and_again(empty_database_url: str) -> None:
    """The stairway: up, down and up again, one revision at a time."""
    for before, revision in zip(["base", *REVISIONS], REVISIONS, strict=False):
        upgrade(empty_database_url, revision)
        downgrade(empty_database_url, before)
        upgrade(empty_database_url, revision)

    check(empty_database_url)
    asyncio.run(_verify(empty_database_url))
    downgrade(empty_database_url, "base")
    assert tables(empty_database_url) == {"alembic_version"}


def test_the_history_has_one_end() -> None:
    assert ScriptDirectory(str(scripts())).get_heads() == REVISIONS[-1:]


def test_the_history_lies_at_the_top_of_the_repository() -> None:
    assert scripts() == Path(__file__).parents[3] / "migrations"


def test_migrating_again_changes_nothing(database_url: str) -> None:
    upgrade(database_url)
    check(database_url)


def test_only_the_newest_schema_is_at_head(empty_database_url: str) -> None:
    """Not an empty database, not one that was taken back, and not that of another release."""
    assert not at_head(empty_database_url)
    upgrade(empty_database_url)
    assert at_head(empty_database_url)
    downgrade(empty_database_url, "base")
    assert not at_head(empty_database_url)
    upgrade(empty_database_url)
    _pretend(empty_database_url, "9999")
    assert not at_head(empty_database_url)


def _pretend(url: str, revision: str) -> None:
    statement = f"UPDATE alembic_version SET version_num = '{revision}'"
    if url.startswith("postgresql"):
        say(url, statement)
        return
    with sqlite3.connect(url.partition(":///")[2]) as file:
        file.execute(statement)
    file.close()


def test_a_migration_that_fails_leaves_nothing_behind(empty_database_url: str) -> None:
    """Here, because somebody's own table is in the way of the last one."""
    statement = "CREATE TABLE context_tokens (somebody TEXT)"
    if empty_database_url.startswith("postgresql"):
        say(empty_database_url, statement)
    else:
        with sqlite3.connect(empty_database_url.partition(":///")[2]) as file:
            file.execute(statement)
        file.close()

    with pytest.raises(DBAPIError, match="already exists"):
        upgrade(empty_database_url)

    assert tables(empty_database_url) == {"context_tokens"}
