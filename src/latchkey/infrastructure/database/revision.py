"""Schema revisions, without importing Alembic, which would delay every start by 0.1 s."""

import sqlite3
from collections.abc import Iterable
from functools import cache
from pathlib import Path

from msgspec import Struct
from sqlalchemy.exc import OperationalError, ProgrammingError
from sqlalchemy.ext.asyncio import AsyncEngine

import latchkey
from latchkey.domain.errors import Unavailable
from latchkey.infrastructure.database.app_history import check_revision_files
from latchkey.infrastructure.database.app_schema import AppSchema
from latchkey.infrastructure.database.urls import SQLITE

NOT_MIGRATED = "The database schema is not up to date: run `latchkey migrate`, or `latchkey serve --migrate`."


@cache
def migrations_folder() -> Path:
    """Return the folder of the migrations: inside the installed package, or at the top of the repository."""
    package = Path(latchkey.__file__).parent
    inside = package / "migrations"
    return inside if inside.is_dir() else package.parent.parent / "migrations"


class RevisionHistory(Struct, frozen=True):
    """A folder of revisions as it was when this process read it.

    `head` is the newest revision: the number at the beginning of the last file's name. It is None without a file.
    """

    folder: Path
    version_table: str
    head: str | None
    is_of_app: bool = False

    def newer_than(self, revision: str | None) -> bool:
        """Whether the head is newer than this revision of a database; None is a database without a revision."""
        return self.head is not None and (revision is None or revision < self.head)


@cache
def built_in_history() -> RevisionHistory:
    """Return the history of Latchkey's own tables."""
    folder = migrations_folder() / "versions"
    return RevisionHistory(folder, "alembic_version", _head(folder))


def app_history(schema: AppSchema) -> RevisionHistory | None:
    """Return the history of the app's tables. None if the app has no folder of migrations.

    It has a version table of its own: an earlier release of Latchkey expects one row in `alembic_version`.
    Raises `FaultyRevision` if a file is no revision, or does not follow the one before.
    """
    if schema.migrations is None:
        return None
    check_revision_files(schema.migrations)
    return RevisionHistory(schema.migrations, "alembic_version_app", _head(schema.migrations), is_of_app=True)


def histories(schema: AppSchema) -> list[RevisionHistory]:
    """Return the histories in the order in which they are migrated. Raises `FaultyRevision`."""
    history = app_history(schema)
    return [built_in_history(), *([history] if history else [])]


def head() -> str:
    """Return the newest revision of Latchkey's own tables."""
    return str(built_in_history().head)


def _head(folder: Path) -> str | None:
    return max((path.name.partition("_")[0] for path in folder.glob("[0-9]*.py")), default=None)


class SchemaVersion(Struct, frozen=True):
    """The revision of a database, and the oldest release that can use it, by that release's newest revision.

    Both are None for a database without a schema; the second one also if an early release has migrated the database.
    """

    history: RevisionHistory
    revision: str | None = None
    compatible_with: str | None = None

    @property
    def is_newer(self) -> bool:
        """Whether a newer release has migrated the database."""
        return self.revision is not None and (self.history.head is None or self.revision > self.history.head)

    def check_usable(self) -> None:
        """Raises `Unavailable`, with the remedy, if this release cannot use the database without a migration."""
        self.check_not_too_new()
        if self.history.newer_than(self.revision):
            raise Unavailable(NOT_MIGRATED)

    def check_not_too_new(self) -> None:
        """Raises `Unavailable` if a newer release has changed the schema so that this one cannot use it."""
        head = self.history.head
        if not self.is_newer or (head and self.compatible_with and self.compatible_with <= head):
            return
        if self.history.is_of_app:
            raise Unavailable(
                f"The app's tables have revision {self.revision} of a newer release of the app, and this one supports"
                f" revisions up to {head or 'none'}: start the newer release, or restore a backup of this one."
            )
        raise Unavailable(
            f"The database has schema revision {self.revision} of a newer release, and this release supports"
            f" revisions up to {head}: start the newer release, or restore a backup of this one."
        )


async def read_schema_version(engine: AsyncEngine, history: RevisionHistory | None = None) -> SchemaVersion:
    """Read the version with one query; without a history, of Latchkey's own tables.

    Raises the driver's error if it cannot be read.
    """
    history = history or built_in_history()
    if engine.url.drivername == SQLITE and not _is_sqlite_file(Path(str(engine.url.database))):
        return SchemaVersion(history)
    async with engine.connect() as connection:
        try:
            result = await connection.exec_driver_sql(f"SELECT * FROM {history.version_table}")  # noqa: S608 - a constant
        except (OperationalError, ProgrammingError) as error:
            if "no such table" in str(error) or "does not exist" in str(error):
                return SchemaVersion(history)
            raise
        row = dict(result.mappings().first() or {})
        # A release before `compatible_with` has made a table without this column.
        return SchemaVersion(history, row.get("version_num"), row.get("compatible_with"))


async def check_schema(engine: AsyncEngine, schemas: Iterable[RevisionHistory]) -> None:
    """Raises `Unavailable`, with the remedy, if this release cannot use the database without a migration."""
    for history in schemas:
        (await read_schema_version(engine, history)).check_usable()


def _is_sqlite_file(path: Path) -> bool:
    """Return whether the file exists. Raises `sqlite3.Error` if it cannot be opened.

    aiosqlite would leave a thread behind that can print a traceback.
    """
    if path.exists():
        sqlite3.connect(path).close()
        return True
    return False
