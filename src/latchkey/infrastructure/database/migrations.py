"""Migrates the schema: Alembic's commands, configured by advanced-alchemy, on an engine with real transactions."""

import asyncio
from argparse import Namespace
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from functools import partial
from pathlib import Path
from typing import Any

from advanced_alchemy.alembic.commands import AlembicCommands
from advanced_alchemy.config import AlembicAsyncConfig, SQLAlchemyAsyncConfig
from alembic.util import CommandError
from asyncpg import LockNotAvailableError
from msgspec import Struct
from sqlalchemy import BINARY, Connection, event, text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine
from sqlalchemy.pool import NullPool

from latchkey.domain.errors import Unavailable
from latchkey.infrastructure.database.app_checks import refuse_unsafe_tables
from latchkey.infrastructure.database.app_history import (
    FaultyRevision,
    line_in,
    newest_compatible_with,
    next_number,
)
from latchkey.infrastructure.database.app_schema import NO_APP, AppSchema
from latchkey.infrastructure.database.autogenerate import completed, options
from latchkey.infrastructure.database.operator_errors import explained_errors
from latchkey.infrastructure.database.repair import (
    LOCK_POLL_S,
    LOCK_TIMEOUT_MS,
    MIGRATION_LOCK,
    repair_role,
    repair_row_security,
)
from latchkey.infrastructure.database.revision import (
    NOT_MIGRATED,
    RevisionHistory,
    SchemaVersion,
    app_history,
    built_in_history,
    migrations_folder,
    read_schema_version,
)
from latchkey.infrastructure.database.schema import metadata
from latchkey.infrastructure.database.sql.sqlite import create_private_file
from latchkey.infrastructure.database.startup_checks import IsolationBroken, missing_app_tables
from latchkey.infrastructure.database.urls import SQLITE, parse

_SQLITE_WAIT_MS = 60_000

_LOCK_ATTEMPTS = 10
_LOCK_PAUSE_S = 1.0


class Migrated(Struct, frozen=True):
    """What a migration did to the tables of one history."""

    history: RevisionHistory
    before: str | None
    after: str | None
    is_newer: bool
    """Whether a newer release has made the schema, which this release can use and leaves as it is."""

    def __str__(self) -> str:
        schema = "the schema of the app" if self.history.is_of_app else "the schema"
        if self.is_newer:
            return (
                f"{schema} is at revision {self.after} of a newer release, which this release ({self.history.head})"
                " can use"
            )
        if self.before == self.after:
            return f"{schema} was up to date, at revision {self.after or 'none'}"
        return f"{schema} was migrated from revision {self.before or 'none'} to {self.after}"


class Upgraded(Struct, frozen=True):
    """What `upgrade` did. `repairs` are the statements that repaired roles, privileges and policies."""

    own: Migrated
    app: Migrated | None
    repairs: list[str]


class Environment(Struct, frozen=True):
    """What `migrations/env.py` runs with: `options` are of `context.configure`, and `check` runs before the commit."""

    history: RevisionHistory
    options: dict[str, Any]
    check: Callable[[Connection], None] | None = None


def built_in_environment() -> Environment:
    def is_ours(name: str | None, kind: str, _parents: object) -> bool:
        """Leave tables of other programs in the same schema alone."""
        return kind != "table" or name in metadata.tables

    return Environment(built_in_history(), {"target_metadata": metadata, "include_name": is_ours})


def _app_environment(schema: AppSchema, check: Callable[[Connection], None] | None = None) -> Environment:
    history = app_history(schema)
    if history is None:
        raise FaultyRevision("The app has no folder of migrations: set `migrations` of its `App`.")
    return Environment(history, options(schema), check)


def upgrade(url: str, revision: str = "head", schema: AppSchema = NO_APP) -> Upgraded:
    """Migrate up to a revision; at the head, also the app's tables, and repair roles, privileges and policies.

    If several processes do so at once, one migrates and the others wait. Raises `Unavailable`, whose text says what
    the operator can do, if the database or its privileges do not allow it, `FaultyRevision` and `IsolationBroken`.
    """
    environments = [built_in_environment()]
    if schema.migrations is not None and revision == "head":
        environments.append(_app_environment(schema, partial(refuse_unsafe_tables, schema=schema)))
    with explained_errors():
        before = [_read_version(url, environment.history) for environment in environments]
        for version in before:
            version.check_not_too_new()
        repairs = asyncio.run(_repair(url, repair_role))
        for environment, version in zip(environments, before, strict=True):
            if not version.is_newer:
                _upgrade(url, revision, environment)
        if revision == "head":
            repairs += asyncio.run(_repair(url, partial(repair_row_security, schema=schema)))
            asyncio.run(_check_tables(url, schema))
        own, *app = [_migrated(version, _read_version(url, version.history)) for version in before]
        return Upgraded(own, app[0] if app else None, repairs)


def _migrated(before: SchemaVersion, after: SchemaVersion) -> Migrated:
    return Migrated(before.history, before.revision, after.revision, after.is_newer)


def _upgrade(url: str, revision: str, environment: Environment) -> None:
    if environment.history.head is None:
        return
    try:
        with _explained_revisions(environment.history):
            _commands(url, environment).upgrade(revision)
    except CommandError as error:
        # A newer release may have migrated the database since its version was read: Alembic does not know its revision.
        version = _read_version(url, environment.history)
        version.check_not_too_new()
        if version.is_newer:
            return
        if environment.history.is_of_app:
            raise Unavailable(
                f"The app's tables are at revision {version.revision}, which is not in {environment.history.folder}:"
                " put its file back, or use another database."
            ) from error
        raise


def downgrade(url: str, revision: str, schema: AppSchema = NO_APP) -> None:
    """Migrate down to a revision; of the app if there is one. Raises like `upgrade`."""
    environment = _app_environment(schema) if schema.migrations else built_in_environment()
    with explained_errors(), _explained_revisions(environment.history):
        _commands(url, environment).downgrade(revision)


def check(url: str, schema: AppSchema = NO_APP) -> None:
    """Raises Alembic's `AutogenerateDiffsDetected` if the migrated tables differ from those in the code.

    They are those of the app if there is one.
    """
    _commands(url, _app_environment(schema) if schema.migrations else built_in_environment()).check()


def create_revision(url: str, message: str, schema: AppSchema, *, empty: bool = False) -> Path | None:
    """Write the app's next revision: the difference of its tables, or nothing but its frame. Returns its path.

    None means that there is no difference, and no file. Raises `Unavailable` if the database is not at the app's newest
    revision, and `FaultyRevision`.
    """
    environment = _app_environment(schema)
    folder = environment.history.folder
    with explained_errors(), _explained_revisions(environment.history):
        version = _read_version(url, environment.history)
        if version.revision != environment.history.head:
            raise Unavailable(
                f"The app's tables are at revision {version.revision or 'none'}, and its newest revision is"
                f" {environment.history.head or 'none'}: run `latchkey migrate` first."
            )
        commands, number = _commands(url, environment), next_number(folder)
        attributes = commands.config.attributes
        store = partial(attributes.__setitem__, "compatible_with")
        store(number)
        script: Any = commands.revision(
            message=" ".join(message.split()).rstrip(".").replace("\\", "/").replace('"', "'"),
            autogenerate=not empty,
            version_path=str(folder),
            rev_id=number,
            process_revision_directives=completed(schema, number, newest_compatible_with(folder), store),
        )
        return Path(script.path) if script else None


@contextmanager
def _explained_revisions(history: RevisionHistory) -> Iterator[None]:
    """Raises `FaultyRevision`, with file and line, for an error in a revision of an app."""
    try:
        with explained_errors():
            yield
    except Exception as error:
        place = line_in(history.folder, error) if history.is_of_app else None
        if place is None or isinstance(error, FaultyRevision):
            raise
        raise FaultyRevision.at(*place, _explanation(error)) from error


def _explanation(error: Exception) -> str:
    """Return one sentence. A remedy for the operator is left out if it is for Latchkey's own tables."""
    cause = error.__cause__ if isinstance(error, Unavailable) and str(error) == NOT_MIGRATED else error
    driver_error = getattr(cause, "driver_exception", cause)
    reason = str(driver_error).partition("\n")[0].rstrip(".")
    if "affected by row-level security" in reason:
        return f"{reason}: use op.execute_for_all_users(statement, table)."
    return f"{reason}." if isinstance(error, Unavailable) else f"{type(driver_error).__name__}: {reason}."


def _commands(url: str, environment: Environment) -> AlembicCommands:
    """Configure Alembic without a file. `migrations/env.py` runs the migrations on the engine."""
    alembic_config = AlembicAsyncConfig(
        script_config="",
        script_location=str(migrations_folder()).replace("%", "%%"),
        version_table_name=environment.history.version_table,
    )
    commands = AlembicCommands(
        SQLAlchemyAsyncConfig(engine_instance=create_migration_engine(url), alembic_config=alembic_config)
    )
    commands.config.attributes["environment"] = environment
    commands.config.cmd_opts = Namespace(quiet=True)
    commands.config.set_main_option("path_separator", "newline")
    commands.config.set_main_option("version_locations", str(environment.history.folder).replace("%", "%%"))
    commands.config.set_main_option("file_template", "%%(rev)s_%%(slug)s")
    return commands


def _read_version(url: str, history: RevisionHistory) -> SchemaVersion:
    return asyncio.run(_read_schema_version(url, history))


async def _read_schema_version(url: str, history: RevisionHistory) -> SchemaVersion:
    engine = create_migration_engine(url)
    try:
        return await read_schema_version(engine, history)
    finally:
        await engine.dispose()


async def _repair(url: str, repair: Callable[[Any], Awaitable[list[str]]]) -> list[str]:
    """On SQLite there is nothing to repair."""
    async with connect(create_migration_engine(url)) as connection:
        if connection.dialect.name != "postgresql":
            return []
        return await repair((await connection.get_raw_connection()).driver_connection)


async def _check_tables(url: str, schema: AppSchema) -> None:
    """Raises `IsolationBroken` if no revision has created a table of the app. On PostgreSQL the repair has found it."""
    async with connect(create_migration_engine(url)) as connection:
        if connection.dialect.name == "sqlite" and (missing := await missing_app_tables(connection, schema)):
            raise IsolationBroken.of(missing)


async def run_with_lock_retries(connection: AsyncConnection, migrate: Callable[[Connection], None]) -> None:
    """Run in one transaction, which is rolled back and run again if it has to wait too long for a lock.

    Raises the driver's error after the last attempt. Waits as long as another process migrates.
    """
    attempt = 1
    while True:
        try:
            await connection.run_sync(migrate)
            await connection.commit()
        except MigrationInProgress:
            await connection.rollback()
            await asyncio.sleep(LOCK_POLL_S)
        except DBAPIError as error:
            if attempt == _LOCK_ATTEMPTS or not isinstance(error.driver_exception, LockNotAvailableError):
                raise
            attempt += 1
            await connection.rollback()
            await asyncio.sleep(_LOCK_PAUSE_S)
        else:
            return


class MigrationInProgress(Exception):
    """Another process migrates this database."""


def lock_migration(connection: Connection) -> None:
    """Take the lock under which one process migrates, until the transaction ends. Raises `MigrationInProgress`."""
    locked = connection.scalar(text("SELECT pg_try_advisory_xact_lock(:key)"), {"key": MIGRATION_LOCK})
    if not locked:
        raise MigrationInProgress
    connection.execute(text(f"SET LOCAL lock_timeout = {LOCK_TIMEOUT_MS}"))


@asynccontextmanager
async def connect(engine: AsyncEngine) -> AsyncIterator[AsyncConnection]:
    """Open one connection and dispose of the engine afterwards."""
    try:
        async with engine.connect() as connection:
            yield connection
    finally:
        await engine.dispose()


def create_migration_engine(database_url: str) -> AsyncEngine:
    """Create an engine with real transactions, on SQLite too: a migration is applied as a whole or not at all."""
    url, connect_args = parse(database_url)
    if url.drivername != SQLITE:
        return create_async_engine(url, connect_args=connect_args, poolclass=NullPool)
    if url.database and url.database != ":memory:":
        Path(url.database).parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        create_private_file(url)
    engine = create_async_engine(url, connect_args={"isolation_level": None}, poolclass=NullPool)
    # SQLAlchemy would read advanced-alchemy's GUID back as a number, and write that when it changes the table.
    engine.dialect.ischema_names = {**engine.dialect.ischema_names, "BINARY": BINARY}  # type: ignore[attr-defined]
    event.listen(engine.sync_engine, "connect", _set_pragmas)
    event.listen(engine.sync_engine, "begin", lambda connection: connection.exec_driver_sql("BEGIN IMMEDIATE"))
    return engine


def _set_pragmas(connection: Any, _record: Any) -> None:
    """Wait for another process that migrates. Close the connection if this fails: SQLAlchemy would not."""
    try:
        cursor = connection.cursor()
        cursor.execute(f"PRAGMA busy_timeout={_SQLITE_WAIT_MS}")
        cursor.execute("PRAGMA journal_mode=WAL")
        cursor.close()
    except BaseException:
        connection.close()
        raise
