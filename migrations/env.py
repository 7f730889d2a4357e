"""Runs the revisions in one transaction, which several processes take in turn."""

import asyncio
import os

from alembic import context
from sqlalchemy import Connection, text

from latchkey.infrastructure.database.migrations import create_migration_engine
from latchkey.infrastructure.database.schema import metadata

_LOCK = 0x6C61746368  # "latch"; held to the end of the transaction, so that a pooler cannot lose it


def _run(connection: Connection) -> None:
    context.configure(
        connection=connection,
        target_metadata=metadata,
        transactional_ddl=True,
        render_as_batch=connection.dialect.name == "sqlite",
    )
    with context.begin_transaction():
        if connection.dialect.name == "postgresql":
            connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": _LOCK})
        context.run_migrations()


async def _connect_and_run() -> None:
    engine = create_migration_engine(os.environ["LATCHKEY_DATABASE_URL"])
    async with engine.connect() as connection:
        await connection.run_sync(_run)
        await connection.commit()
    await engine.dispose()


if (given := context.config.attributes.get("connection")) is not None:
    _run(given)
else:
    asyncio.run(_connect_and_run())
