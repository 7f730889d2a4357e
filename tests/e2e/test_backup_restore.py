"""Backup and restore: a dump in a new PostgreSQL cluster, and a copy of an SQLite file, as docs/database.md says."""

import asyncio
import sqlite3
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, closing
from pathlib import Path

import asyncpg
import pytest

from latchkey.testing.postgresql import PostgreSQL, client_program, postgresql
from tests.e2e.service_process import (
    BASE_SETTINGS,
    Environment,
    Replica,
    issue_token,
    migrate_database,
    run_command,
    running_service,
)
from tests.e2e.test_app_commands import APP

DATABASE = "latchkey_test"
CREATE_BACKUP_LOGIN = (
    "CREATE ROLE latchkey_backup LOGIN BYPASSRLS",
    "GRANT SELECT ON ALL TABLES IN SCHEMA public TO latchkey_backup",
)
REVOKE_ALL_TOKENS = "UPDATE context_tokens SET revoked_at = created_at WHERE revoked_at IS NULL"


@pytest.fixture
def servers(tmp_path: Path) -> Iterator[list[PostgreSQL]]:
    """Two clusters. Each has a database of the same name; neither has roles of the other."""
    with pytest.MonkeyPatch.context() as patch, ExitStack() as stack:
        patch.delenv("TEST_DATABASE_URL", raising=False)
        servers = [stack.enter_context(postgresql(tmp_path / f"server-{number}.log")) for number in range(2)]
        for server in servers:
            server.create_database(DATABASE)
        yield servers


def settings(url: str) -> Environment:
    return {**BASE_SETTINGS, "LATCHKEY_DATABASE_URL": url}


def add_task_and_mint_token(replica: Replica, jwt: str) -> dict[str, str]:
    """Returns the context token: `id` and `token`."""
    assert replica.request("POST", "/api/ada/tasks", jwt, json={"title": "Buy milk"}).status_code == 201
    minted = replica.request("POST", "/api/ada/context-tokens", jwt, json={"grants": ["tasks:read"]})
    credentials: dict[str, str] = minted.json()
    return credentials


def list_tasks_over_mcp(replica: Replica, context_token: str) -> int:
    """Returns the status: 200, or 401 for a revoked token."""
    body = {"jsonrpc": "2.0", "id": 1, "method": "tools/list", "params": {}}
    headers = {"accept": "application/json, text/event-stream", "mcp-protocol-version": "2025-11-25"}
    return replica.request("POST", "/mcp", context_token, json=body, headers=headers).status_code


def assert_restored(replica: Replica, jwt: str) -> None:
    tasks = replica.request("GET", "/api/ada/tasks", jwt).json()["items"]
    assert [task["title"] for task in tasks] == ["Buy milk"]
    assert replica.request("POST", "/api/ada/tasks", jwt, json={"title": "Call Mum"}).status_code == 201


def test_dump_restored_into_new_cluster_is_repaired_by_migrate_and_served(
    home: Path, servers: list[PostgreSQL]
) -> None:
    """Also the tables of an app. The new owner has neither BYPASSRLS nor the old owner's name; there is no role."""
    old, new = servers
    jwt = issue_token("ada", home, BASE_SETTINGS)
    (home / "shop.py").write_text(APP)
    environment = {**settings(old.url(DATABASE)), "LATCHKEY_APP": "shop:app"}
    assert run_command("revision", "-m", "Shop", home=home, environment=environment).exit_code == 0
    migrate_database(home, environment)
    for statement in CREATE_BACKUP_LOGIN:
        execute(old.superuser_url(DATABASE), statement)
    with running_service(home=home, environment=environment) as replica:
        minted = add_task_and_mint_token(replica, jwt)
        dump(old, "latchkey_backup", home / "latchkey.dump")
        assert replica.request("DELETE", f"/api/ada/context-tokens/{minted['id']}", jwt).status_code == 204
        assert list_tasks_over_mcp(replica, minted["token"]) == 401

    new.execute("CREATE ROLE new_owner LOGIN CREATEROLE PASSWORD 'owner'")
    new.execute(f"ALTER DATABASE {DATABASE} OWNER TO new_owner")
    url = login_url(new, "new_owner")
    environment = {**settings(url), "LATCHKEY_APP": "shop:app"}
    run(
        [
            client_program("pg_restore"),
            "--no-owner",
            "--no-acl",
            "--exit-on-error",
            f"--dbname={url}",
            home / "latchkey.dump",
        ]
    )
    assert run_command("serve", home=home, environment=environment).exit_code == 1
    migrated = run_command("migrate", home=home, environment=environment)
    assert migrated.exit_code == 0, migrated.stderr
    assert "repaired with CREATE ROLE latchkey_rt NOLOGIN" in migrated.stdout
    assert "repaired with GRANT SELECT, INSERT, UPDATE, DELETE ON tasks TO latchkey_rt" in migrated.stdout
    assert "repaired with GRANT SELECT, INSERT, UPDATE, DELETE ON letters TO latchkey_rt" in migrated.stdout
    assert "repaired with GRANT SELECT ON bicycles TO latchkey_rt" in migrated.stdout
    with running_service(home=home, environment=environment) as replica:
        assert_restored(replica, jwt)
        assert list_tasks_over_mcp(replica, minted["token"]) == 200  # revoked only after the backup
        execute(new.superuser_url(DATABASE), REVOKE_ALL_TOKENS)
        assert list_tasks_over_mcp(replica, minted["token"]) == 401


@pytest.mark.parametrize("option", [[], ["--enable-row-security"]], ids=["plain", "with row security"])
def test_dump_by_login_without_bypassrls_fails_instead_of_being_incomplete(
    home: Path, postgresql_server: PostgreSQL, postgresql_url: str, option: list[str]
) -> None:
    database = postgresql_url.rpartition("/")[2]
    login = f"reader_of_{database}"
    superuser_url = postgresql_server.superuser_url(database)
    execute(superuser_url, f"CREATE ROLE {login} LOGIN")
    execute(superuser_url, f"GRANT SELECT ON ALL TABLES IN SCHEMA public TO {login}")
    try:
        command: list[str | Path] = [
            client_program("pg_dump"),
            *option,
            f"--file={home / 'dump'}",
            login_url(postgresql_server, login, database),
        ]
        refused = subprocess.run(command, check=False, capture_output=True, text=True)
    finally:
        execute(superuser_url, f"DROP OWNED BY {login}")
        execute(superuser_url, f"DROP ROLE {login}")

    assert refused.returncode == 1
    assert "app.user_id" in refused.stderr if option else "row-level security" in refused.stderr


def test_sqlite_backup_of_running_service_is_restored_and_served(home: Path, sqlite_url: str) -> None:
    jwt = issue_token("ada", home, BASE_SETTINGS)
    copy = home / "copy.db"
    with running_service(home=home, environment=settings(sqlite_url)) as replica:
        minted = add_task_and_mint_token(replica, jwt)
        path = sqlite_url.partition(":///")[2]
        with closing(sqlite3.connect(path)) as source, closing(sqlite3.connect(copy)) as target:
            source.backup(target)
        assert replica.request("DELETE", f"/api/ada/context-tokens/{minted['id']}", jwt).status_code == 204
    restored = settings(f"sqlite+aiosqlite:///{copy}")

    migrate_database(home, restored)
    with running_service(home=home, environment=restored) as replica:
        assert_restored(replica, jwt)
        assert list_tasks_over_mcp(replica, minted["token"]) == 200  # revoked only after the backup
        with closing(sqlite3.connect(copy)) as connection, connection:
            connection.execute(REVOKE_ALL_TOKENS)
        assert list_tasks_over_mcp(replica, minted["token"]) == 401


def dump(server: PostgreSQL, login: str, path: Path) -> None:
    run([client_program("pg_dump"), "--format=custom", f"--file={path}", login_url(server, login)])


def run(command: list[str | Path]) -> None:
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def login_url(server: PostgreSQL, login: str, database: str = DATABASE) -> str:
    return server.admin.set(username=login, database=database).render_as_string(hide_password=False)


def execute(url: str, statement: str) -> None:
    async def connect_and_execute() -> None:
        connection = await asyncpg.connect(url)
        try:
            await connection.execute(statement)
        finally:
            await connection.close()

    asyncio.run(connect_and_execute())
