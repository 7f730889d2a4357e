"""Errors at start-up: the message names what to change, and the exit code tells the kind of error."""

import asyncio
import os
import shutil
import socket
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import asyncpg
import pytest

from latchkey.domain.credentials import TokenSecret, UserId
from latchkey.infrastructure.database.revision import head
from latchkey.testing.processes import TIMEOUT_S, free_port
from tests.e2e.service_process import BASE_SETTINGS, Environment, run_command

LATCHKEY = Path(sys.executable).with_name("latchkey")
TOKEN = TokenSecret.mint(UserId("ada"))

NOT_CONFIGURED: dict[str, tuple[Environment, str]] = {
    "no identity": ({}, "LATCHKEY_AUTH_SECRET"),
    "a secret that is too short": ({"LATCHKEY_AUTH_SECRET": "secret"}, "32 bytes"),
    "half of an identity provider": ({"LATCHKEY_AUTH_JWKS_URL": "https://auth.example/jwks"}, "LATCHKEY_AUTH_ISSUER"),
    "an unknown setting": ({**BASE_SETTINGS, "LATCHKEY_AUTH_ISUER": "x"}, "LATCHKEY_AUTH_ISSUER"),
    "an invalid value": ({**BASE_SETTINGS, "LATCHKEY_TURNS_PER_USER": "many"}, "LATCHKEY_TURNS_PER_USER"),
    "an agent without its key": ({**BASE_SETTINGS, "LATCHKEY_AGENT": "claude"}, "ANTHROPIC_API_KEY"),
    "a file agent without its key": ({**BASE_SETTINGS, "LATCHKEY_FILE_AGENT": "claude"}, "ANTHROPIC_API_KEY"),
    "a CLI that does not exist": ({**BASE_SETTINGS, "LATCHKEY_CLAUDE_CLI": "/does/not/exist"}, "LATCHKEY_CLAUDE_CLI"),
    "a file agent without a model": ({**BASE_SETTINGS, "LATCHKEY_FILE_AGENT": "openai"}, "OPENAI_API_KEY"),
    "an unsupported database": ({**BASE_SETTINGS, "LATCHKEY_DATABASE_URL": "mysql://x/y"}, "postgresql://"),
    "an unreachable database": (
        {**BASE_SETTINGS, "LATCHKEY_DATABASE_URL": "postgresql://x:pass@127.0.0.1:1/y"},
        "database",
    ),
}
USAGE = [
    [],
    ["serv"],
    ["serve", "--prot", "8000"],
    ["serve", "--port", "0"],
    ["serve", "--port", "http"],
    ["serve", "--workers", "0"],
    ["serve", "--dev", "--workers", "2"],
    ["token"],
    ["token", "a b"],
    ["token", ".."],
    ["token", "ada", "--ttl", "soon"],
    ["token", "ada", "--ttl", "0h"],
    ["migrate", "now"],
]


@pytest.mark.parametrize(("environment", "expected_text"), NOT_CONFIGURED.values(), ids=NOT_CONFIGURED)
def test_serve_with_invalid_configuration_names_the_setting(
    home: Path, environment: Environment, expected_text: str
) -> None:
    refused = run_command("serve", home=home, environment=environment)

    assert (refused.exit_code, refused.stdout) == (1, "")
    assert expected_text in refused.stderr
    assert "Traceback" not in refused.stderr
    assert "pass@" not in refused.stderr
    assert list(home.iterdir()) == []


@pytest.mark.parametrize("arguments", USAGE, ids=" ".join)
def test_invalid_command_line_prints_usage(home: Path, arguments: list[str]) -> None:
    refused = run_command(*arguments, home=home, environment=BASE_SETTINGS)

    assert refused.exit_code == 2
    assert "Usage: latchkey" in refused.stderr
    assert list(home.iterdir()) == []


@pytest.mark.parametrize("option", ["--help", "-h", "--version"])
def test_help_and_version_exit_with_0(home: Path, option: str) -> None:
    result = run_command(option, home=home, environment={})

    assert (result.exit_code, result.stderr) == (0, "")
    assert "latchkey" in result.stdout


def test_serve_without_schema_fails(home: Path, empty_database_url: str) -> None:
    environment = {**BASE_SETTINGS, "LATCHKEY_DATABASE_URL": empty_database_url}
    refused = run_command("serve", home=home, environment=environment)

    assert refused.exit_code == 1
    assert "latchkey migrate" in refused.stderr
    assert "--migrate" in refused.stderr


@pytest.mark.parametrize(
    "damage",
    [
        "ALTER TABLE tasks DISABLE ROW LEVEL SECURITY",
        "ALTER TABLE messages NO FORCE ROW LEVEL SECURITY",
        "CREATE POLICY anybody ON tasks USING (true)",
    ],
)
def test_serve_without_row_level_security_fails(home: Path, postgresql_url: str, damage: str) -> None:
    environment = {**BASE_SETTINGS, "LATCHKEY_DATABASE_URL": postgresql_url}
    asyncio.run(_execute(postgresql_url, damage))
    refused = run_command("serve", home=home, environment=environment)
    doctor = run_command("doctor", home=home, environment=environment)

    assert (refused.exit_code, doctor.exit_code) == (1, 1)
    assert damage.split()[2 if "POLICY" not in damage else 4] in refused.stderr
    assert "FAIL" in doctor.stdout


@pytest.mark.parametrize("command", [["migrate"], ["serve"], ["serve", "--migrate"], ["doctor"]], ids=" ".join)
def test_database_of_a_newer_release_is_refused_in_one_sentence(
    home: Path, database_url: str, command: list[str]
) -> None:
    _set_revision(database_url, "9999")
    environment = {**BASE_SETTINGS, "LATCHKEY_DATABASE_URL": database_url}
    refused = run_command(*command, home=home, environment=environment)
    expected_text = f"schema revision 9999 of a newer release, and this release supports revisions up to {head()}"

    assert refused.exit_code == 1
    assert expected_text in (refused.stdout if command == ["doctor"] else refused.stderr.splitlines()[-1])
    assert "Traceback" not in refused.stderr


def _set_revision(url: str, revision: str) -> None:
    """The schema is that of a release beside which no older one can go on."""
    statement = f"UPDATE alembic_version SET version_num = '{revision}', compatible_with = '{revision}'"
    if url.startswith("postgresql"):
        asyncio.run(_execute(url, statement))
        return
    with closing(sqlite3.connect(url.partition(":///")[2])) as connection, connection:
        connection.execute(statement)


@pytest.mark.parametrize("command", ["migrate", "doctor", "serve"])
def test_sqlite_url_that_names_another_file_is_refused_in_one_sentence(home: Path, command: str) -> None:
    """Neither a folder nor a text file is a database."""
    folder, text_file = home / "folder", home / "notes.txt"
    folder.mkdir(mode=0o700)
    text_file.write_text("Buy milk. " * 1_000)
    for path, expected_text in ((folder, "cannot be "), (text_file, "is no SQLite database: file is not a database")):
        environment = {**BASE_SETTINGS, "LATCHKEY_DATABASE_URL": f"sqlite+aiosqlite:///{path}"}
        refused = run_command(command, home=home, environment=environment)

        assert refused.exit_code == 1
        assert expected_text in (refused.stdout if command == "doctor" else refused.stderr.splitlines()[-1])
        assert "Traceback" not in refused.stderr


COMMANDS = [["serve"], ["serve", "--dev"], ["serve", "--migrate"], ["migrate"], ["doctor"], ["mcp"]]


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_file_in_place_of_the_folder_is_explained_in_one_sentence(home: Path, command: list[str]) -> None:
    """Neither a folder nor a file can be created: a file has the name of the folder."""
    (home / "var").write_text("")
    refused = run_command(*command, home=home, environment={**BASE_SETTINGS, "LATCHKEY_CONTEXT_TOKEN": TOKEN.text})
    output = refused.stdout if command == ["doctor"] else refused.stderr
    creates = command in (["serve", "--dev"], ["serve", "--migrate"], ["migrate"])

    assert refused.exit_code == 1
    assert "Traceback" not in refused.stderr
    assert ("The SQLite file cannot be created: " if creates else "`latchkey migrate`") in output


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_damaged_sqlite_file_is_explained_in_one_sentence(home: Path, command: list[str]) -> None:
    database = home / "notes.db"
    database.write_bytes(b"no database " * 10_000)
    environment = {**BASE_SETTINGS, "LATCHKEY_DATABASE_URL": f"sqlite+aiosqlite:///{database}"}
    refused = run_command(*command, home=home, environment={**environment, "LATCHKEY_CONTEXT_TOKEN": TOKEN.text})
    output = refused.stdout if command == ["doctor"] else refused.stderr.splitlines()[-1]

    assert refused.exit_code == 1
    assert "Traceback" not in refused.stderr
    assert "is no SQLite database: file is not a database" in output


@pytest.mark.skipif(os.geteuid() == 0 and not shutil.which("setpriv"), reason="root may write every file")
@pytest.mark.parametrize("command", [["serve"], ["doctor"], ["mcp"]], ids=" ".join)
def test_read_only_sqlite_file_is_refused_in_one_sentence(home: Path, sqlite_url: str, command: list[str]) -> None:
    """It used to be served, and to refuse each write."""
    database = Path(sqlite_url.partition(":///")[2])
    database.chmod(0o400)
    prefix = ["setpriv", "--bounding-set=-dac_override"] if os.geteuid() == 0 else []
    environment = {
        **BASE_SETTINGS,
        "LATCHKEY_DATABASE_URL": sqlite_url,
        "LATCHKEY_CONTEXT_TOKEN": TOKEN.text,
        "PATH": os.environ["PATH"],
    }
    refused = subprocess.run(
        [*prefix, LATCHKEY, *command],
        cwd=home,
        env=environment,
        timeout=TIMEOUT_S,
        check=False,
        capture_output=True,
        text=True,
    )

    assert refused.returncode == 1
    assert "Traceback" not in refused.stderr
    assert "The SQLite file cannot be written: " in refused.stdout + refused.stderr


def test_serve_on_used_port_names_the_address(home: Path, sqlite_url: str) -> None:
    environment = {**BASE_SETTINGS, "LATCHKEY_DATABASE_URL": sqlite_url}
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        refused = run_command("serve", "--port", str(port), home=home, environment=environment)

    assert refused.exit_code == 1
    assert refused.stderr.splitlines()[-1] == f"latchkey: Cannot listen on 127.0.0.1:{port}: Address already in use."


async def _execute(url: str, statement: str) -> None:
    connection = await asyncpg.connect(url)
    try:
        await connection.execute(statement)
    finally:
        await connection.close()


@pytest.mark.parametrize("command", [["migrate"], ["serve", "--migrate"]], ids=" ".join)
def test_unreachable_database_fails_without_traceback(home: Path, command: list[str]) -> None:
    url = f"postgresql://ada:s3cret-of-ada@127.0.0.1:{free_port()}/nothing"
    refused = run_command(*command, home=home, environment={**BASE_SETTINGS, "LATCHKEY_DATABASE_URL": url})

    assert refused.exit_code == 1
    assert "The database cannot be reached" in refused.stderr
    assert "Traceback" not in refused.stderr
    assert "s3cret-of-ada" not in refused.stdout + refused.stderr
