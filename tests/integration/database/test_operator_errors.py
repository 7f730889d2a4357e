"""Each command reports an error that the operator can fix in one sentence with its remedy."""

import asyncio
from collections.abc import Iterator
from uuid import uuid4

import asyncpg
import pytest
from sqlalchemy import make_url

from latchkey.bootstrap.database import check_database
from latchkey.config import DatabaseUrl, Settings
from latchkey.domain.errors import Unavailable
from latchkey.infrastructure.database.migrations import upgrade
from latchkey.testing.postgresql import PostgreSQL
from tests.integration.database.conftest import run_sql
from tests.polling import wait_until_sync

PASSWORD = "a wrong password"


@pytest.fixture(scope="module")
def database(own_server: PostgreSQL) -> Iterator[str]:
    """The name of a migrated database."""
    name = f"latchkey_test_{uuid4().hex[:12]}"
    upgrade(own_server.create_database(name))
    yield name
    own_server.drop_database(name)


@pytest.fixture
def login(own_server: PostgreSQL) -> Iterator[str]:
    """The name of a login without any privilege."""
    name = f"login_{uuid4().hex[:12]}"
    own_server.execute(f"CREATE ROLE {name} LOGIN PASSWORD 'the right password'")
    yield name
    own_server.execute(f"DROP ROLE {name}")


def url_of(server: PostgreSQL, database: str, login: str) -> str:
    url = make_url(server.url(database)).set(username=login, password=PASSWORD)
    return url.render_as_string(hide_password=False)


def refusals(url: str) -> list[str]:
    """The texts with which `migrate` and the check of `serve` and `doctor` refuse the database."""
    texts = []
    for command in (upgrade, lambda url: check_database(Settings(database_url=DatabaseUrl(url)))):
        with pytest.raises(Unavailable) as refused:
            command(url)
        texts.append(str(refused.value))
    assert not any("\n" in text or "sqlalche.me" in text or PASSWORD in text for text in texts)
    return texts


@pytest.fixture
def with_passwords(own_server: PostgreSQL, login: str) -> Iterator[None]:
    """Require a password for this login. Other logins of the test server need none."""
    url = own_server.superuser_url("postgres")
    [[path]] = run_sql(url, "SHOW hba_file")
    everybody = "('local all all trust'), ('host all all 127.0.0.1/32 trust')"
    with_password = f"('host all {login} 127.0.0.1/32 scram-sha-256'), {everybody}"
    run_sql(url, f"COPY (VALUES {with_password}) TO '{path}'", "SELECT pg_reload_conf()")
    wait_until_sync(lambda: not can_connect(url_of(own_server, "postgres", login)))
    yield
    run_sql(url, f"COPY (VALUES {everybody}) TO '{path}'", "SELECT pg_reload_conf()")


def can_connect(url: str) -> bool:
    async def connect() -> None:
        connection = await asyncpg.connect(url)
        await connection.close()

    try:
        asyncio.run(connect())
    except asyncpg.InvalidPasswordError:
        return False
    return True


@pytest.mark.usefixtures("with_passwords")
def test_wrong_password_is_refused_in_one_sentence(own_server: PostgreSQL, database: str, login: str) -> None:
    for text in refusals(url_of(own_server, database, login)):
        assert text.startswith(f'The database refuses this login: password authentication failed for user "{login}"')
        assert "Check user, password and sslmode in LATCHKEY_DATABASE_URL" in text


def test_unknown_login_is_refused_in_one_sentence(own_server: PostgreSQL, database: str) -> None:
    for text in refusals(url_of(own_server, database, "nobody")):
        assert text.startswith('The database refuses this login: role "nobody" does not exist.')


def test_missing_database_is_refused_in_one_sentence(own_server: PostgreSQL) -> None:
    for text in refusals(own_server.url("latchkey_nothing")):
        assert text.startswith('There is no such database: database "latchkey_nothing" does not exist. Create it')


def test_missing_grants_are_named(own_server: PostgreSQL, database: str, login: str) -> None:
    """Of the table of revisions, and of the database."""
    url = url_of(own_server, database, login)
    for text in refusals(url):
        assert "permission denied for table alembic_version" in text
        assert "run GRANT SELECT ON alembic_version TO this login" in text

    own_server.execute(f"REVOKE CONNECT ON DATABASE {database} FROM PUBLIC")
    try:
        for text in refusals(url):
            assert f'GRANT CONNECT, CREATE ON DATABASE "{database}" TO this login' in text
    finally:
        own_server.execute(f"GRANT CONNECT ON DATABASE {database} TO PUBLIC")


@pytest.mark.usefixtures("database")
def test_missing_privilege_to_create_tables_is_named(own_server: PostgreSQL, login: str) -> None:
    name = f"latchkey_test_{uuid4().hex[:12]}"
    own_server.create_database(name)
    run_sql(own_server.superuser_url(name), "REVOKE CREATE ON SCHEMA public FROM PUBLIC")
    own_server.execute(f"GRANT latchkey_rt TO {login}")
    try:
        with pytest.raises(Unavailable, match="GRANT USAGE, CREATE ON SCHEMA public TO this login"):
            upgrade(url_of(own_server, name, login))
    finally:
        own_server.drop_database(name)


def test_standby_and_full_server_are_refused_in_one_sentence(own_server: PostgreSQL) -> None:
    name = f"latchkey_test_{uuid4().hex[:12]}"
    url = own_server.create_database(name)
    own_server.execute(f"ALTER DATABASE {name} SET default_transaction_read_only = on")
    try:
        with pytest.raises(Unavailable, match=r"standby: cannot execute .* in a read-only transaction"):
            upgrade(url)
        own_server.execute(f"ALTER DATABASE {name} CONNECTION LIMIT 0")
        for text in refusals(url):
            assert text.startswith("The database cannot do this now: too many connections for database")
    finally:
        own_server.drop_database(name)
