"""`latchkey migrate` at the newest revision repairs the runtime role, its privileges and the policies."""

from collections.abc import Iterator
from uuid import uuid4

import pytest
from sqlalchemy import make_url

from latchkey.domain.errors import Unavailable
from latchkey.infrastructure.database.migrations import upgrade
from latchkey.infrastructure.database.revision import head
from latchkey.infrastructure.database.startup_checks import IsolationBroken
from latchkey.testing.postgresql import PostgreSQL
from tests.integration.database.conftest import run_sql
from tests.integration.database.test_startup_checks import WEAKENED, faults_of

FOR_THE_OPERATOR = {
    "another's policy",
    "another's policy for reading",
    "a restriction",
    "no table",
    "a table of the role's own",
    "a default user",
}
"""Faults whose repair could destroy something that has a purpose."""


@pytest.fixture
def database(own_server: PostgreSQL) -> Iterator[str]:
    """The name of a migrated database."""
    name = f"latchkey_test_{uuid4().hex[:12]}"
    upgrade(own_server.create_database(name))
    yield name
    own_server.drop_database(name)


@pytest.mark.parametrize("fault", [name for name in WEAKENED if name not in FOR_THE_OPERATOR])
def test_migrate_at_head_repairs_row_level_security(own_server: PostgreSQL, database: str, fault: str) -> None:
    url = own_server.url(database)
    run_sql(own_server.superuser_url(database), *WEAKENED[fault][0].split(";\n"))
    if fault == "no access to the schema":  # belongs to the superuser that made the database
        url = own_server.superuser_url(database)
    assert faults_of(url) != ""

    migrated = upgrade(url)

    assert (migrated.own.before, migrated.own.after, len(migrated.repairs)) == (head(), head(), 1)
    assert faults_of(url) == ""
    assert upgrade(url).repairs == []


@pytest.mark.parametrize("fault", sorted(FOR_THE_OPERATOR))
def test_migrate_reports_what_it_does_not_repair(own_server: PostgreSQL, database: str, fault: str) -> None:
    statement, text = WEAKENED[fault]
    run_sql(own_server.superuser_url(database), statement)

    with pytest.raises(IsolationBroken) as refused:
        upgrade(own_server.url(database))

    assert text in str(refused.value)


def test_migrate_at_head_creates_and_grants_a_missing_role(own_server: PostgreSQL, database: str) -> None:
    """As after a restore into another cluster: the dump contains no roles."""
    url = own_server.url(database)
    run_sql(own_server.superuser_url(database), "DROP OWNED BY latchkey_rt", "DROP ROLE latchkey_rt")
    assert "The role latchkey_rt does not exist: run `latchkey migrate`" in faults_of(url)

    repairs = upgrade(url).repairs

    assert repairs[0] == "CREATE ROLE latchkey_rt NOLOGIN"
    assert repairs[1].startswith("GRANT latchkey_rt TO CURRENT_USER")
    assert "GRANT SELECT, INSERT, UPDATE, DELETE ON tasks TO latchkey_rt" in repairs
    assert faults_of(url) == ""


def test_migrate_at_head_repairs_attributes_of_the_role(own_server: PostgreSQL, database: str) -> None:
    superuser_url = own_server.superuser_url(database)
    run_sql(superuser_url, "ALTER ROLE latchkey_rt LOGIN BYPASSRLS")

    assert upgrade(superuser_url).repairs == ["ALTER ROLE latchkey_rt NOLOGIN", "ALTER ROLE latchkey_rt NOBYPASSRLS"]
    assert faults_of(own_server.url(database)) == ""


def test_migrate_of_a_login_without_privileges_names_the_remedy(own_server: PostgreSQL, database: str) -> None:
    """The owner of the tables is another login."""
    login = f"login_{uuid4().hex[:12]}"
    own_server.execute(f"CREATE ROLE {login} LOGIN")
    statements = ("GRANT SELECT ON alembic_version", "GRANT latchkey_rt")
    run_sql(own_server.superuser_url(database), *(f"{statement} TO {login}" for statement in statements))
    url = make_url(own_server.url(database)).set(username=login).render_as_string(hide_password=False)
    assert upgrade(url).repairs == []
    run_sql(own_server.superuser_url(database), "ALTER TABLE tasks DISABLE ROW LEVEL SECURITY")

    with pytest.raises(Unavailable, match="off for tasks: ALTER TABLE tasks ENABLE ROW LEVEL SECURITY"):
        upgrade(url)

    run_sql(own_server.superuser_url(database), f"DROP OWNED BY {login}", f"DROP ROLE {login}")
