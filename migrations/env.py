"""Runs migrations in one transaction. Processes that migrate the same database at once take turns.

`latchkey migrate` passes its engine; the `alembic` command uses the database of `LATCHKEY_DATABASE_URL`.
"""

import asyncio
import os

from advanced_alchemy.alembic.commands import AlembicCommandConfig
from alembic import context
from sqlalchemy import Connection, text
from sqlalchemy.ext.asyncio import AsyncEngine

from latchkey.infrastructure.database.migrations import (
    LOCK_TIMEOUT_MS,
    connect,
    create_migration_engine,
    run_with_lock_retries,
)
from latchkey.infrastructure.database.repair import MIGRATION_LOCK
from latchkey.infrastructure.database.schema import metadata


def _is_ours(name: str | None, type_: str, _parents: object) -> bool:
    """Leave tables of other programs in the same schema alone."""
    return type_ != "table" or name in metadata.tables


def _run(connection: Connection) -> None:
    context.configure(
        connection=connection,
        target_metadata=metadata,
        include_name=_is_ours,
        transactional_ddl=True,
        render_as_batch=connection.dialect.name == "sqlite",
    )
    with context.begin_transaction():
        if connection.dialect.name == "postgresql":
            connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": MIGRATION_LOCK})
            connection.execute(text(f"SET LOCAL lock_timeout = {LOCK_TIMEOUT_MS}"))
        context.run_migrations()
        _store_compatibility(connection)


def _store_compatibility(connection: Connection) -> None:
    """Write the revision's `compatible_with` beside the revision.

    The column is not made by a revision, so that an early release can go on beside this one, at the same revision.
    """
    row = connection.execute(text("SELECT * FROM alembic_version")).mappings().first()
    if row is None:
        return
    revision = context.script.get_revision(row["version_num"])
    if "compatible_with" not in row:
        connection.execute(text("ALTER TABLE alembic_version ADD COLUMN compatible_with VARCHAR(32)"))
    if row.get("compatible_with") != revision.module.compatible_with:
        statement = text("UPDATE alembic_version SET compatible_with = :oldest")
        connection.execute(statement, {"oldest": revision.module.compatible_with})


async def _connect_and_run() -> None:
    async with connect(_engine()) as connection:
        await run_with_lock_retries(connection, _run)


def _engine() -> AsyncEngine:
    if isinstance(context.config, AlembicCommandConfig) and isinstance(context.config.engine, AsyncEngine):
        return context.config.engine
    return create_migration_engine(os.environ["LATCHKEY_DATABASE_URL"])


asyncio.run(_connect_and_run())
