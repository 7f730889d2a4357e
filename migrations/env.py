"""Runs migrations in one transaction. Processes that migrate the same database at once take turns.

`latchkey migrate` passes its engine, and whether the tables are Latchkey's own or an app's. The `alembic` command
migrates Latchkey's own, in the database of `LATCHKEY_DATABASE_URL`.
"""

import asyncio
import os

from advanced_alchemy.alembic.commands import AlembicCommandConfig
from alembic import context
from sqlalchemy import Connection, text
from sqlalchemy.ext.asyncio import AsyncEngine

from latchkey.infrastructure.database.migrations import (
    Environment,
    built_in_environment,
    connect,
    create_migration_engine,
    lock_migration,
    run_with_lock_retries,
)

environment: Environment = context.config.attributes.get("environment") or built_in_environment()


def _run(connection: Connection) -> None:
    options = {"render_as_batch": connection.dialect.name == "sqlite", **environment.options}
    context.configure(
        connection=connection,
        version_table=environment.history.version_table,
        transactional_ddl=True,
        **options,
    )
    with context.begin_transaction():
        if connection.dialect.name == "postgresql":
            lock_migration(connection)
            # A statement that policies would hide rows from fails. Behind a pooler it could otherwise see none.
            connection.execute(text("SET LOCAL row_security = off"))
        context.run_migrations()
        _store_compatibility(connection)
        if environment.check:
            environment.check(connection)


def _store_compatibility(connection: Connection) -> None:
    """Write the revision's `compatible_with` beside the revision.

    The column is not made by a revision, so that an early release can go on beside this one, at the same revision.
    """
    table = environment.history.version_table
    row = connection.execute(text(f"SELECT * FROM {table}")).mappings().first()  # noqa: S608 - a constant
    if row is None:
        return
    oldest = getattr(context.script.get_revision(row["version_num"]).module, "compatible_with", None)
    if "compatible_with" not in row:
        connection.execute(text(f"ALTER TABLE {table} ADD COLUMN compatible_with VARCHAR(32)"))
    if row.get("compatible_with") != oldest:
        statement = text(f"UPDATE {table} SET compatible_with = :oldest")  # noqa: S608 - a constant
        connection.execute(statement, {"oldest": oldest})


async def _connect_and_run() -> None:
    async with connect(_engine()) as connection:
        await run_with_lock_retries(connection, _run)


def _engine() -> AsyncEngine:
    if isinstance(context.config, AlembicCommandConfig) and isinstance(context.config.engine, AsyncEngine):
        return context.config.engine
    return create_migration_engine(os.environ["LATCHKEY_DATABASE_URL"])


asyncio.run(_connect_and_run())
