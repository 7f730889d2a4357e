"""Startup checks: the service refuses a database that does not isolate users, and reports each fault."""

import asyncio
import sqlite3
from pathlib import Path
from uuid import uuid4

import pytest
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine

from latchkey.infrastructure.database.migrations import upgrade
from latchkey.infrastructure.database.sql.engine import create_engine
from latchkey.infrastructure.database.startup_checks import IsolationBroken, verify
from latchkey.infrastructure.database.urls import parse
from latchkey.testing.postgresql import OWNER, PostgreSQL
from tests.integration.database.conftest import run_sql

MINE = "user_id = current_setting('app.user_id')"

WEAKENED: dict[str, tuple[str, str]] = {
    "row-level security off": ("ALTER TABLE tasks DISABLE ROW LEVEL SECURITY", "is off for tasks: ALTER TABLE tasks"),
    "not forced": ("ALTER TABLE turns NO FORCE ROW LEVEL SECURITY", "is not forced for turns: ALTER TABLE turns"),
    "no policy": ("DROP POLICY messages_of_user ON messages", "The policy messages_of_user is missing"),
    "another's policy": (
        "CREATE POLICY all_of_it ON tasks USING (true)",
        "unknown policy: DROP POLICY all_of_it ON tasks",
    ),
    "another's policy for reading": (
        "CREATE POLICY peep ON context_tokens FOR SELECT USING (true)",
        "context_tokens has an unknown policy",
    ),
    "a restriction": ("CREATE POLICY few ON tasks AS RESTRICTIVE USING (false)", "tasks has an unknown policy"),
    "a policy that shows all": ("ALTER POLICY tasks_of_user ON tasks USING (true)", "has been changed"),
    "a policy that takes all": ("ALTER POLICY tasks_of_user ON tasks WITH CHECK (true)", "has been changed"),
    "a policy for a role": (f"ALTER POLICY tasks_of_user ON tasks TO {OWNER}", "has been changed"),
    "a policy for reading alone": (
        f"DROP POLICY tasks_of_user ON tasks;\nCREATE POLICY tasks_of_user ON tasks FOR SELECT USING ({MINE})",
        "The policy tasks_of_user has been changed",
    ),
    "a policy that an unset user passes by": (
        "ALTER POLICY tasks_of_user ON tasks USING (user_id = current_setting('app.user_id', true))",
        "The policy tasks_of_user has been changed",
    ),
    "no table": ("DROP TABLE tool_calls", "The table tool_calls is missing: run `latchkey migrate`"),
    "a table of the role's own": ("ALTER TABLE tasks OWNER TO latchkey_rt", "latchkey_rt owns tasks"),
    "a table that may be emptied": ("GRANT TRUNCATE ON tasks TO latchkey_rt", "can truncate tasks"),
    "a table that anybody may empty": ("GRANT TRUNCATE ON tasks TO PUBLIC", "can truncate tasks"),
    "no access": ("REVOKE ALL ON conversations FROM latchkey_rt", "may not read and write conversations: GRANT SELECT"),
    "no access for deleting": ("REVOKE DELETE ON tasks FROM latchkey_rt", "may not read and write tasks: GRANT SELECT"),
    "no access to the schema": (
        "REVOKE USAGE ON SCHEMA public FROM latchkey_rt, PUBLIC",
        'may not use the schema: GRANT USAGE ON SCHEMA "public" TO latchkey_rt',
    ),
    "a default user": (
        "DO $$ BEGIN EXECUTE format('ALTER DATABASE %I SET app.user_id = ''me''', current_database()); END $$",
        "app.user_id has a default",
    ),
}

PRIVILEGED_ROLES: dict[str, tuple[list[str], list[str], str]] = {
    "may log in": (["ALTER ROLE latchkey_rt LOGIN"], ["ALTER ROLE latchkey_rt NOLOGIN"], "has LOGIN"),
    "a superuser": (["ALTER ROLE latchkey_rt SUPERUSER"], ["ALTER ROLE latchkey_rt NOSUPERUSER"], "has SUPERUSER"),
    "not bound": (["ALTER ROLE latchkey_rt BYPASSRLS"], ["ALTER ROLE latchkey_rt NOBYPASSRLS"], "has BYPASSRLS"),
    "a member of a superuser": (
        ["CREATE ROLE chief SUPERUSER", "CREATE ROLE deputy IN ROLE chief", "GRANT deputy TO latchkey_rt"],
        ["DROP ROLE deputy", "DROP ROLE chief"],
        "REVOKE chief FROM latchkey_rt",
    ),
    "a member of one that is not bound": (
        ["CREATE ROLE unbound BYPASSRLS", "GRANT unbound TO latchkey_rt"],
        ["DROP ROLE unbound"],
        "REVOKE unbound FROM latchkey_rt",
    ),
    "out of reach": (
        [f"REVOKE latchkey_rt FROM {OWNER} CASCADE"],
        [f"GRANT latchkey_rt TO {OWNER}"],
        "This login cannot switch to latchkey_rt",
    ),
}


def faults_of(url: str, engine: AsyncEngine | None = None) -> str:
    """Return the reported faults, or an empty text."""

    async def look() -> str:
        checked_engine = engine or create_engine(url)
        try:
            await verify(checked_engine)
        except IsolationBroken as broken:
            return str(broken)
        finally:
            await checked_engine.dispose()
        return ""

    return asyncio.run(look())


def test_migrated_database_passes_isolation_checks(database_url: str) -> None:
    assert faults_of(database_url) == ""


def test_superuser_and_pooler_pass_isolation_checks(superuser_url: str, pgbouncer_url: str) -> None:
    assert faults_of(superuser_url) == ""
    assert faults_of(f"{pgbouncer_url}?statement_cache_size=0") == ""


@pytest.mark.parametrize(("statement", "fault"), WEAKENED.values(), ids=WEAKENED)
def test_weakened_row_level_security_is_refused(
    postgresql_url: str, superuser_url: str, statement: str, fault: str
) -> None:
    assert faults_of(postgresql_url) == ""
    run_sql(superuser_url, *statement.split(";\n"))

    assert fault in faults_of(postgresql_url)


@pytest.mark.parametrize(("weaken", "restore", "fault"), PRIVILEGED_ROLES.values(), ids=PRIVILEGED_ROLES)
def test_runtime_role_with_privileges_is_refused(
    own_server: PostgreSQL, weaken: list[str], restore: list[str], fault: str
) -> None:
    name = f"latchkey_test_{uuid4().hex[:12]}"
    url = own_server.create_database(name)
    upgrade(url)
    assert faults_of(url) == ""
    try:
        run_sql(own_server.superuser_url(name), *weaken)
        assert fault in faults_of(url)
    finally:
        run_sql(own_server.superuser_url(name), *restore)
        assert faults_of(url) == ""
        own_server.drop_database(name)


def test_runtime_role_that_is_member_of_owner_is_refused(own_server: PostgreSQL) -> None:
    """Membership would make the tables its own."""
    name = f"latchkey_test_{uuid4().hex[:12]}"
    upgrade(own_server.create_database(name))
    owner = "latchkey_test_plain_owner"
    own_server.execute(f"CREATE ROLE {owner}")
    tables = run_sql(own_server.superuser_url(name), "SELECT tablename FROM pg_tables WHERE schemaname = 'public'")
    run_sql(own_server.superuser_url(name), *(f"ALTER TABLE {table[0]} OWNER TO {owner}" for table in tables))
    own_server.execute(f"GRANT {owner} TO latchkey_rt")

    assert f"REVOKE {owner} FROM latchkey_rt" in faults_of(own_server.superuser_url(name))

    own_server.drop_database(name)
    own_server.execute(f"DROP ROLE {owner}")


def test_all_isolation_faults_are_reported_together(postgresql_url: str, superuser_url: str) -> None:
    run_sql(superuser_url, WEAKENED["row-level security off"][0], WEAKENED["no policy"][0])

    found = faults_of(postgresql_url)

    assert WEAKENED["row-level security off"][1] in found
    assert WEAKENED["no policy"][1] in found


def test_database_without_migration_is_refused(own_server: PostgreSQL) -> None:
    name = f"latchkey_test_{uuid4().hex[:12]}"
    assert "run `latchkey migrate`" in faults_of(own_server.create_database(name))
    own_server.drop_database(name)


def test_isolation_checks_leave_no_rows(postgresql_url: str, superuser_url: str) -> None:
    assert faults_of(postgresql_url) == ""
    assert run_sql(superuser_url, "SELECT * FROM conversations") == []


def test_engine_without_tenant_guard_is_refused(database_url: str) -> None:
    url, connect_args = parse(database_url)
    assert "no tenant guard" in faults_of("", create_async_engine(url, connect_args=connect_args))


def test_sqlite_without_required_pragmas_is_refused(sqlite_url: str, sqlite_path: Path) -> None:
    """Foreign keys are set per connection, the journal mode per file."""
    with sqlite3.connect(sqlite_path) as file:
        file.execute("PRAGMA journal_mode=DELETE")
    file.close()

    found = faults_of("", create_async_engine(sqlite_url))

    assert "foreign_keys is 0 instead of 1" in found
    assert "journal_mode is delete instead of wal" in found
