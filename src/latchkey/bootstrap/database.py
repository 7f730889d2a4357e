"""The database of a command: its schema with that of the app, checks and migrations."""
# ruff: noqa: PLC0415  # Alembic starts slowly, and an app imports all of the service

import asyncio
from collections.abc import Iterable
from pathlib import Path

from latchkey.bootstrap.runtime import gc_paused
from latchkey.config import Settings
from latchkey.domain.errors import Unavailable
from latchkey.infrastructure.database.app_schema import NO_APP, AppSchema
from latchkey.infrastructure.database.operator_errors import explained_errors
from latchkey.infrastructure.database.revision import check_schema, histories
from latchkey.infrastructure.database.sql.engine import create_engine
from latchkey.infrastructure.database.startup_checks import IsolationBroken, verify


def app_schema(settings: Settings, *, needs_migrations: bool = True) -> AppSchema:
    """Return the tables of the app that the settings name.

    Raises `AppError`, also if the folder of its migrations does not exist and they are needed.
    """
    if settings.app is None:
        return NO_APP
    with gc_paused():
        from latchkey.bootstrap.registry import read_app_schema
    return read_app_schema(settings, needs_migrations=needs_migrations)


def check_database(settings: Settings) -> None:
    """Raises `Unavailable` or `IsolationBroken` if the service must not use this database; the text says why.

    Raises `AppError` and `FaultyRevision` for the app.
    """
    asyncio.run(_check_database(settings.database_url, app_schema(settings)))


async def _check_database(url: str, schema: AppSchema) -> None:
    with explained_errors():
        engine = create_engine(url)
        try:
            await check_schema(engine, histories(schema))
            await verify(engine, schema)
        finally:
            await engine.dispose()


def prepare_database(settings: Settings, *, migrate: bool) -> None:
    """Check the database, and migrate it if that is allowed and needed. Raises like `check_database`."""
    try:
        check_database(settings)
    except (Unavailable, IsolationBroken):
        if not migrate:
            raise
        with gc_paused():
            from latchkey.infrastructure.database.migrations import upgrade
        upgrade(settings.database_url, schema=app_schema(settings))
        check_database(settings)


def migrate_database(settings: Settings) -> Iterable[str]:
    """Migrate to the newest revisions, and repair roles, privileges and policies. Yields what was done."""
    with gc_paused():
        from latchkey.infrastructure.database.migrations import upgrade
        from latchkey.infrastructure.database.urls import location
    url = settings.database_url
    upgraded = upgrade(url, schema=app_schema(settings))
    yield f"{location(url)}: {upgraded.own}"
    if upgraded.app:
        yield f"{location(url)}: {upgraded.app}"
    for statement in upgraded.repairs:
        yield f"{location(url)}: repaired with {statement}"


def write_revision(settings: Settings, message: str, *, empty: bool) -> Path | None:
    """Write the next revision of the app, and return its path. None if its tables are those of the database."""
    with gc_paused():
        from latchkey.infrastructure.database.migrations import create_revision
    schema = app_schema(settings, needs_migrations=False)
    return create_revision(settings.database_url, message, schema, empty=empty)
