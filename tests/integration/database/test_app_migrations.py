"""Migrations of an app: written from its tables, applied after Latchkey's own, and checked."""

import asyncio
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from advanced_alchemy.base import convention
from sqlalchemy import Column, ForeignKey, MetaData, Table, Text, Uuid, text
from sqlalchemy.ext.asyncio import create_async_engine
from sqlalchemy.pool import NullPool

from latchkey.domain.errors import Unavailable
from latchkey.infrastructure.database.app_history import FaultyRevision
from latchkey.infrastructure.database.app_schema import AppSchema
from latchkey.infrastructure.database.entity import entity_table, reference_table
from latchkey.infrastructure.database.migrations import check, create_revision, downgrade, upgrade
from latchkey.infrastructure.database.revision import app_history, head, read_schema_version
from latchkey.infrastructure.database.sql.engine import create_engine
from latchkey.infrastructure.database.startup_checks import IsolationBroken, verify
from latchkey.infrastructure.database.urls import parse
from tests.integration.database.test_migrations import ID, tables
from tests.support.shop import shop

TABLES = {"reservations", "Bike Rides", "bicycles"}
MIGRATE = """
import sys
from pathlib import Path
from latchkey.infrastructure.database.migrations import upgrade
from tests.support.shop import shop
print(upgrade(sys.argv[1], schema=shop(Path(sys.argv[2]))).app)
"""


def execute(url: str, *statements: str) -> list[tuple[Any, ...]]:
    """Run the statements in one transaction and return the rows of the last one."""

    async def run() -> list[tuple[Any, ...]]:
        address, connect_args = parse(url)
        engine = create_async_engine(address, connect_args=connect_args, poolclass=NullPool)
        async with engine.begin() as connection:
            results = [await connection.execute(text(statement)) for statement in statements]
            rows = [tuple(row) for row in results[-1]] if results[-1].returns_rows else []
        await engine.dispose()
        return rows

    return asyncio.run(run())


def verify_usable(url: str, schema: AppSchema) -> None:
    """Check the database as the service does at startup."""

    async def run() -> None:
        engine = create_engine(url)
        try:
            (await read_schema_version(engine, app_history(schema))).check_usable()
            await verify(engine, schema)
        finally:
            await engine.dispose()

    asyncio.run(run())


@pytest.fixture
def app(tmp_path: Path) -> AppSchema:
    """An app without revisions."""
    return shop(tmp_path / "migrations")


@pytest.fixture
def first_revision(database_url: str, app: AppSchema) -> Path:
    """The revision that creates the app's tables, not applied yet."""
    path = create_revision(database_url, "Reservations", app)
    assert path is not None
    return path


def later(app: AppSchema, *columns: Column[Any]) -> AppSchema:
    """The next release of the app, with more columns of reservations."""
    assert app.migrations is not None
    return shop(app.migrations, *columns)


def test_revision_migrates_the_tables_and_the_next_one_has_nothing_to_do(
    database_url: str, app: AppSchema, first_revision: Path
) -> None:
    assert first_revision.name == "0001_reservations.py"

    migrated = upgrade(database_url, schema=app).app

    assert str(migrated) == "the schema of the app was migrated from revision none to 0001"
    assert tables(database_url) >= TABLES
    check(database_url, app)
    check(database_url)
    verify_usable(database_url, app)
    assert create_revision(database_url, "Again", app) is None
    assert list(first_revision.parent.glob("*.py")) == [first_revision]


def test_app_has_a_version_table_of_its_own(database_url: str, app: AppSchema, first_revision: Path) -> None:
    """An earlier release of Latchkey reads the first row of `alembic_version`, and would take it for its own."""
    upgrade(database_url, schema=app)

    assert execute(database_url, "SELECT version_num FROM alembic_version") == [(head(),)]
    assert execute(database_url, "SELECT version_num, compatible_with FROM alembic_version_app") == [("0001", "0001")]


def test_upgrade_from_an_empty_database_runs_both_histories(
    empty_database_url: str, app: AppSchema, database_url: str, first_revision: Path
) -> None:
    upgraded = upgrade(empty_database_url, schema=app)

    assert upgraded.own.after == head()
    assert upgraded.app is not None
    assert upgraded.app.after == "0001"
    verify_usable(empty_database_url, app)


def test_upgrade_without_revisions_leaves_the_app_at_none(database_url: str, app: AppSchema) -> None:
    app = AppSchema(migrations=app.migrations)

    assert str(upgrade(database_url, schema=app).app) == "the schema of the app was up to date, at revision none"
    assert "alembic_version_app" not in tables(database_url)
    verify_usable(database_url, app)


def test_downgrade_of_the_app_keeps_the_tables_of_latchkey(
    database_url: str, app: AppSchema, first_revision: Path
) -> None:
    before = tables(database_url)
    upgrade(database_url, schema=app)

    downgrade(database_url, "base", app)

    assert tables(database_url) == before | {"alembic_version_app"}
    assert str(upgrade(database_url, schema=app).app).endswith("from revision none to 0001")


def test_added_column_is_compatible_with_the_release_before(
    database_url: str, app: AppSchema, first_revision: Path
) -> None:
    upgrade(database_url, schema=app)
    later_app = later(app, Column("note", Text()))

    path = create_revision(database_url, 'A "note"', later_app)
    upgrade(database_url, schema=later_app)

    assert path is not None
    assert path.name == "0002_a_note.py"
    assert path.read_text().startswith('"""A \'note\'."""\n')
    assert execute(database_url, "SELECT version_num, compatible_with FROM alembic_version_app") == [("0002", "0001")]
    path.unlink()
    verify_usable(database_url, app)


@pytest.mark.parametrize("change", ["a needed column", "no column"])
def test_other_changes_are_compatible_with_their_own_release_only(
    database_url: str, app: AppSchema, first_revision: Path, change: str
) -> None:
    """The release before would fail."""
    upgrade(database_url, schema=app)
    if change == "no column":
        execute(database_url, "ALTER TABLE reservations ADD COLUMN note TEXT")
        later_app = app
    else:
        later_app = later(app, Column("note", Text(), nullable=False))

    path = create_revision(database_url, "A note", later_app)
    upgrade(database_url, schema=later_app)

    assert path is not None
    path.unlink()
    with pytest.raises(Unavailable, match=r"have revision 0002 of a newer release of the app, .* up to 0001"):
        verify_usable(database_url, app)


def test_empty_revision_is_a_frame(database_url: str, app: AppSchema, first_revision: Path) -> None:
    """For example for the rows of a reference table."""
    upgrade(database_url, schema=app)

    path = create_revision(database_url, "Bicycles of 2027", app, empty=True)

    assert path is not None
    assert "def upgrade() -> None:\n    pass\n" in path.read_text()
    assert str(upgrade(database_url, schema=app).app).endswith("from revision 0001 to 0002")


def test_revision_of_a_database_that_is_not_at_the_head_is_refused(
    database_url: str, app: AppSchema, first_revision: Path
) -> None:
    with pytest.raises(Unavailable, match=r"at revision none, and its newest revision is 0001: run `latchkey migrate`"):
        create_revision(database_url, "Again", app)


def test_tables_that_are_not_of_the_app_are_never_in_a_revision(
    database_url: str, app: AppSchema, first_revision: Path
) -> None:
    """Nor are the columns and indexes of a full-text search."""
    upgrade(database_url, schema=app)
    execute(database_url, "CREATE TABLE others (user_id TEXT, note TEXT)")
    if database_url.startswith("postgresql"):
        execute(
            database_url,
            "ALTER TABLE reservations ADD COLUMN words TSVECTOR",
            "CREATE INDEX ix_words ON reservations USING gin (words)",
            "CREATE INDEX ix_code_words ON reservations USING gin (to_tsvector('simple', code))",
        )
    else:
        execute(database_url, "CREATE VIRTUAL TABLE reservations_words USING fts5(code)")

    assert create_revision(database_url, "Nothing", app) is None
    check(database_url, app)


def test_concurrent_processes_migrate_the_app_once(database_url: str, app: AppSchema, first_revision: Path) -> None:
    command = [sys.executable, "-c", MIGRATE, database_url, str(app.migrations)]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    processes = [
        subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        for _ in range(2)
    ]
    outputs = [process.communicate(timeout=120) for process in processes]

    assert [process.returncode for process in processes] == [0, 0], outputs
    verify_usable(database_url, app)
    assert len(execute(database_url, "SELECT version_num FROM alembic_version_app")) == 1


def test_service_and_migrate_refuse_a_missing_table_of_the_app(database_url: str, app: AppSchema) -> None:
    with pytest.raises(IsolationBroken, match='`latchkey revision -m "…"` first if no revision creates it'):
        upgrade(database_url, schema=app)
    with pytest.raises(IsolationBroken, match="The table reservations is missing: run `latchkey migrate`, or"):
        verify_usable(database_url, app)


def test_service_refuses_an_app_that_is_not_migrated(database_url: str, app: AppSchema, first_revision: Path) -> None:
    with pytest.raises(Unavailable, match="not up to date: run `latchkey migrate`"):
        verify_usable(database_url, app)


@pytest.mark.parametrize("compatible_with", ["0001", "9999", None])
def test_newer_release_of_the_app_is_usable_if_it_says_so(
    database_url: str, app: AppSchema, first_revision: Path, compatible_with: str | None
) -> None:
    upgrade(database_url, schema=app)
    value = f"'{compatible_with}'" if compatible_with else "NULL"
    execute(database_url, f"UPDATE alembic_version_app SET version_num = '9999', compatible_with = {value}")

    if compatible_with == "0001":
        verify_usable(database_url, app)
        assert "is at revision 9999 of a newer release" in str(upgrade(database_url, schema=app).app)
    else:
        with pytest.raises(Unavailable, match="revision 9999 of a newer release of the app"):
            verify_usable(database_url, app)
        with pytest.raises(Unavailable, match="revision 9999 of a newer release of the app"):
            upgrade(database_url, schema=app)


def test_error_in_a_revision_has_file_and_line_and_is_rolled_back(
    database_url: str, app: AppSchema, first_revision: Path
) -> None:
    failing = '    op.execute("INSERT INTO nowhere VALUES (1)")\n'
    source = first_revision.read_text().replace("    # ### end", f"{failing}    # ### end", 1)
    first_revision.write_text(source)
    line = source[: source.index("INSERT INTO nowhere")].count("\n") + 1

    with pytest.raises(FaultyRevision) as refused:
        upgrade(database_url, schema=app)

    assert str(refused.value).startswith(f"{first_revision}:{line}: ")
    assert "nowhere" in str(refused.value)
    assert not TABLES & tables(database_url)


def test_failed_import_of_a_revision_has_file_and_line(database_url: str, app: AppSchema, first_revision: Path) -> None:
    first_revision.write_text(first_revision.read_text().replace("import sqlalchemy as sa", "import nowhere as sa"))

    with pytest.raises(FaultyRevision, match=r"0001_reservations.py:3: ModuleNotFoundError: No module named 'nowhere'"):
        upgrade(database_url, schema=app)


def test_revision_whose_file_is_gone_is_reported(database_url: str, app: AppSchema, first_revision: Path) -> None:
    """For example after it was renumbered."""
    upgrade(database_url, schema=app)
    source = first_revision.read_text().replace('revision = "0001"', 'revision = "0002"', 1)
    source = source.replace('compatible_with = "0001"', 'compatible_with = "0002"')
    first_revision.rename(first_revision.with_name("0002_reservations.py")).write_text(source)

    with pytest.raises(Unavailable, match=r"at revision 0001, which is not in .*/migrations: put its file back"):
        upgrade(database_url, schema=app)


def test_changed_table_keeps_its_rows_and_those_that_refer_to_it(
    database_url: str, app: AppSchema, first_revision: Path
) -> None:
    """On SQLite the change of a column makes a new table."""
    upgrade(database_url, schema=app)
    [reservations, rides], key = app.entities, f"'{ID}'"
    values = {"user_id": "'ada'", "id": key, "version": "1", "created_at": "'2026-01-02'", "updated_at": "'2026-01-02'"}
    of_reservation = {**values, "bicycle_id": key, "code": "'x'", "paid_at": "'2026-01-02'"}
    execute(
        database_url,
        f"INSERT INTO bicycles (id) VALUES ({key})",
        insert_sql(reservations, of_reservation),
        insert_sql(rides, {**values, "reservation_id": key}),
    )
    reservations.c.paid_at.nullable = False
    reservations.c.code.nullable = True

    path = create_revision(database_url, "All are paid", app)
    upgrade(database_url, schema=app)

    assert path is not None
    assert path.read_text().count(".alter_column(") == 4
    assert execute(database_url, 'SELECT user_id, version FROM "Bike Rides"') == [("ada", 1)]
    assert execute(database_url, "SELECT user_id, code FROM reservations") == [("ada", "x")]
    check(database_url, app)
    verify_usable(database_url, app)


def insert_sql(table: Table, values: dict[str, str]) -> str:
    return f'INSERT INTO "{table.name}" ({", ".join(values)}) VALUES ({", ".join(values.values())})'


PAGE = Path(__file__).parents[3] / "docs/app-migrations.md"


def test_revision_in_the_documentation_creates_its_tables(database_url: str, tmp_path: Path) -> None:
    [revision] = re.findall(r"^```python\n(.*?)^```$", PAGE.read_text(), re.MULTILINE | re.DOTALL)
    (tmp_path / "0001_reservations.py").write_text(revision)
    metadata = MetaData(naming_convention=convention)
    bicycles = reference_table(
        "bicycles", Column("id", Uuid(), primary_key=True), Column("name", Text(), nullable=False), metadata=metadata
    )
    bicycle_id = Column("bicycle_id", Uuid(), ForeignKey(bicycles.c.id), nullable=False)
    documented = AppSchema((entity_table("reservations", bicycle_id, metadata=metadata),), (bicycles,), tmp_path)

    upgrade(database_url, schema=documented)

    verify_usable(database_url, documented)
    assert create_revision(database_url, "Nothing", documented) is None
