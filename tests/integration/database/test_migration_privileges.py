"""Migrations under different privileges and by concurrent processes."""

import asyncio
import os
import subprocess
import sys
from collections.abc import Iterator
from uuid import uuid4

import pytest
from sqlalchemy import make_url

from latchkey.domain.credentials import Owner, UserId
from latchkey.domain.errors import Unavailable
from latchkey.infrastructure.database.migrations import check, downgrade, upgrade
from latchkey.infrastructure.database.sql.engine import create_engine
from latchkey.infrastructure.database.startup_checks import verify
from latchkey.infrastructure.database.unit_of_work import SqlUnitsOfWork
from latchkey.testing.postgresql import PostgreSQL
from tests.integration.database.conftest import run_sql
from tests.user_data import ROW_COUNT, UserData

MIGRATE = "import sys; from latchkey.infrastructure.database.migrations import upgrade; upgrade(sys.argv[1])"


def migrate_concurrently(*urls: str) -> list[tuple[int, str]]:
    """Start one process for each URL. Returns exit codes and stderr."""
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", MIGRATE, url],
            env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
            stderr=subprocess.PIPE,
            text=True,
        )
        for url in urls
    ]
    said = [process.communicate(timeout=120)[1] for process in processes]
    return [(process.returncode, text) for process, text in zip(processes, said, strict=True)]


async def serve(url: str) -> None:
    """Check the database as the service does at startup, then store and read."""
    engine = create_engine(url)
    try:
        await verify(engine)
        units, somebody, belongings = SqlUnitsOfWork(engine), Owner(UserId("somebody")), UserData()
        await belongings.store(units, somebody)
        assert len(await belongings.read_all(units, somebody)) == ROW_COUNT
    finally:
        await engine.dispose()


@pytest.fixture
def database(own_server: PostgreSQL) -> Iterator[str]:
    """The name of an empty database on a server without the runtime role."""
    name = f"latchkey_test_{uuid4().hex[:12]}"
    own_server.create_database(name)
    _forget_role(own_server)
    yield name
    own_server.drop_database(name)
    _forget_role(own_server)


def _forget_role(server: PostgreSQL) -> None:
    server.execute("DROP ROLE IF EXISTS latchkey_rt")


@pytest.fixture
def another_database(own_server: PostgreSQL, database: str) -> Iterator[str]:
    name = f"{database}_too"
    own_server.create_database(name)
    yield name
    own_server.drop_database(name)


def as_new_owner(server: PostgreSQL, database: str, powers: str) -> str:
    """Create a role that owns the database. Returns the database URL of that role."""
    name = f"owner_{uuid4().hex[:12]}"
    server.execute(f"CREATE ROLE {name} LOGIN PASSWORD 'owner' {powers}")
    server.execute(f"ALTER DATABASE {database} OWNER TO {name}")
    run_sql(server.superuser_url(database), f"GRANT CREATE ON SCHEMA public TO {name}")
    return make_url(server.url(database)).set(username=name).render_as_string(hide_password=False)


def test_concurrent_upgrades_of_one_database_succeed(empty_database_url: str) -> None:
    """One migrates, the others wait, and all succeed."""
    assert migrate_concurrently(*[empty_database_url] * 4) == [(0, "")] * 4
    check(empty_database_url)


def test_concurrent_upgrades_of_two_databases_of_one_server_succeed(
    own_server: PostgreSQL, database: str, another_database: str
) -> None:
    """Both migrations try to create the shared role."""
    urls = [own_server.url(database), own_server.url(another_database)]

    assert migrate_concurrently(*urls, *urls) == [(0, "")] * 4
    for url in urls:
        asyncio.run(serve(url))


def test_owner_with_createrole_can_migrate_and_serve(own_server: PostgreSQL, database: str) -> None:
    url = as_new_owner(own_server, database, "NOSUPERUSER CREATEROLE NOBYPASSRLS")
    upgrade(url)
    asyncio.run(serve(url))


def test_downgrade_updates_rows_hidden_by_row_level_security(own_server: PostgreSQL, database: str) -> None:
    """Row-level security applies to the owner of the tables too, and the downgrade still updates every row."""
    url = as_new_owner(own_server, database, "NOSUPERUSER CREATEROLE NOBYPASSRLS")
    upgrade(url)
    asyncio.run(serve(url))
    run_sql(own_server.superuser_url(database), "UPDATE tool_calls SET result = NULL")

    downgrade(url, "0003")

    calls = run_sql(own_server.superuser_url(database), "SELECT result FROM tool_calls")
    assert {call["result"] for call in calls} == {"null"}
    upgrade(url)
    check(url)
    asyncio.run(isolated(url))


async def isolated(url: str) -> None:
    engine = create_engine(url)
    await verify(engine)
    await engine.dispose()


def test_superuser_can_migrate_and_serve(own_server: PostgreSQL, database: str) -> None:
    upgrade(own_server.superuser_url(database))
    asyncio.run(serve(own_server.superuser_url(database)))


def test_creator_of_role_can_migrate_another_database(
    own_server: PostgreSQL, database: str, another_database: str
) -> None:
    for name in (database, another_database):
        upgrade(own_server.url(name))
        asyncio.run(serve(own_server.url(name)))


def test_other_owner_can_migrate_after_grant_of_role(
    own_server: PostgreSQL, database: str, another_database: str
) -> None:
    """From PostgreSQL 16 on, the owner needs a GRANT of the role first, as the error says."""
    upgrade(own_server.url(database))
    url = as_new_owner(own_server, another_database, "CREATEROLE BYPASSRLS")
    owner = make_url(url).username
    if run_sql(own_server.superuser_url(database), "SHOW server_version_num")[0][0] >= "160000":
        with pytest.raises(Unavailable, match=f"run GRANT latchkey_rt TO {owner}"):
            upgrade(url)
        own_server.execute(f"GRANT latchkey_rt TO {owner}")

    upgrade(url)

    asyncio.run(serve(url))


def test_owner_without_createrole_is_refused_until_granted_the_role(own_server: PostgreSQL, database: str) -> None:
    """The migration succeeds once the role exists and is granted."""
    url = as_new_owner(own_server, database, "NOCREATEROLE")
    owner = make_url(url).username
    with pytest.raises(Unavailable, match=f"run CREATE ROLE latchkey_rt NOLOGIN and GRANT latchkey_rt TO {owner}"):
        upgrade(url)
    own_server.execute("CREATE ROLE latchkey_rt NOLOGIN")
    own_server.execute(f"GRANT latchkey_rt TO {owner}")

    upgrade(url)

    asyncio.run(serve(url))
