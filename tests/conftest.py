"""The databases that tests ask for by name, each its own copy of a migrated template."""

import shutil
from collections.abc import Iterator
from pathlib import Path
from uuid import uuid4

import pytest

from latchkey.infrastructure.database.migrations import upgrade
from tests.pgbouncer import pgbouncer
from tests.postgresql import PostgreSQL, postgresql


@pytest.fixture(scope="session")
def postgresql_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PostgreSQL]:
    with postgresql(tmp_path_factory.mktemp("postgresql") / "log") as server:
        yield server


@pytest.fixture(scope="session")
def postgresql_template(postgresql_server: PostgreSQL) -> Iterator[str]:
    """The name of a migrated database to make others from."""
    name = _new_name()
    upgrade(postgresql_server.create_database(name))
    yield name
    postgresql_server.drop_database(name)


@pytest.fixture
def empty_postgresql_url(postgresql_server: PostgreSQL) -> Iterator[str]:
    name = _new_name()
    yield postgresql_server.create_database(name)
    postgresql_server.drop_database(name)


@pytest.fixture
def postgresql_url(postgresql_server: PostgreSQL, postgresql_template: str) -> Iterator[str]:
    name = _new_name()
    yield postgresql_server.create_database(name, postgresql_template)
    postgresql_server.drop_database(name)


@pytest.fixture(scope="session")
def pgbouncer_server(postgresql_server: PostgreSQL, tmp_path_factory: pytest.TempPathFactory) -> Iterator[PostgreSQL]:
    with pgbouncer(postgresql_server, tmp_path_factory.mktemp("pgbouncer") / "log") as server:
        yield server


@pytest.fixture
def pgbouncer_url(pgbouncer_server: PostgreSQL, postgresql_url: str) -> str:
    """The database of `postgresql_url` as it is reached through PgBouncer."""
    return pgbouncer_server.url(postgresql_url.rpartition("/")[2])


@pytest.fixture(scope="session")
def sqlite_template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("sqlite") / "template.db"
    upgrade(_sqlite_url(path))
    return path


@pytest.fixture
def empty_sqlite_url(tmp_path: Path) -> str:
    return _sqlite_url(tmp_path / "latchkey.db")


@pytest.fixture
def sqlite_url(sqlite_template: Path, tmp_path: Path) -> str:
    return _sqlite_url(Path(shutil.copy(sqlite_template, tmp_path / "latchkey.db")))


@pytest.fixture(params=["sqlite", "postgresql"])
def database_url(request: pytest.FixtureRequest) -> str:
    """A migrated database of each kind in turn."""
    url: str = request.getfixturevalue(f"{request.param}_url")
    return url


@pytest.fixture(scope="session")
def shared_postgresql_url(postgresql_server: PostgreSQL, postgresql_template: str) -> Iterator[str]:
    name = _new_name()
    yield postgresql_server.create_database(name, postgresql_template)
    postgresql_server.drop_database(name)


@pytest.fixture(scope="session")
def shared_sqlite_url(sqlite_template: Path, tmp_path_factory: pytest.TempPathFactory) -> str:
    return _sqlite_url(Path(shutil.copy(sqlite_template, tmp_path_factory.mktemp("shared") / "latchkey.db")))


@pytest.fixture(scope="session", params=["sqlite", "postgresql"])
def shared_database_url(request: pytest.FixtureRequest) -> str:
    """One migrated database of each kind in turn, for tests that bring people of their own."""
    url: str = request.getfixturevalue(f"shared_{request.param}_url")
    return url


@pytest.fixture(params=["sqlite", "postgresql"])
def empty_database_url(request: pytest.FixtureRequest) -> str:
    """A database of each kind in turn that nothing has been made in."""
    url: str = request.getfixturevalue(f"empty_{request.param}_url")
    return url


def _sqlite_url(path: Path) -> str:
    return f"sqlite+aiosqlite:///{path}"


def _new_name() -> str:
    return f"latchkey_test_{uuid4().hex[:12]}"
