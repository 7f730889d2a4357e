"""What the program refuses to do: it says what to set or to do, and its exit code says whose turn it is."""

import asyncio
import socket
from pathlib import Path

import asyncpg
import pytest

from tests.e2e.service_process import BASE_SETTINGS, Environment, run_command
from tests.process_supervision import free_port

NOT_CONFIGURED: dict[str, tuple[Environment, str]] = {
    "no identity": ({}, "LATCHKEY_AUTH_SECRET"),
    "a secret that is too short": ({"LATCHKEY_AUTH_SECRET": "secret"}, "32 bytes"),
    "half of an identity provider": ({"LATCHKEY_AUTH_JWKS_URL": "https://auth.example/jwks"}, "LATCHKEY_AUTH_ISSUER"),
    "a setting that is not there": ({**BASE_SETTINGS, "LATCHKEY_AUTH_ISUER": "x"}, "LATCHKEY_AUTH_ISSUER"),
    "a value that is none": ({**BASE_SETTINGS, "LATCHKEY_TURNS_PER_USER": "many"}, "LATCHKEY_TURNS_PER_USER"),
    "an agent without its key": ({**BASE_SETTINGS, "LATCHKEY_AGENT": "claude"}, "ANTHROPIC_API_KEY"),
    "a file agent without its key": ({**BASE_SETTINGS, "LATCHKEY_FILE_AGENT": "claude"}, "ANTHROPIC_API_KEY"),
    "a program that is none": ({**BASE_SETTINGS, "LATCHKEY_CLAUDE_CLI": "/does/not/exist"}, "LATCHKEY_CLAUDE_CLI"),
    "a file agent that nobody can reach": ({**BASE_SETTINGS, "LATCHKEY_FILE_AGENT": "openai"}, "OPENAI_API_KEY"),
    "a database that is none": ({**BASE_SETTINGS, "LATCHKEY_DATABASE_URL": "mysql://x/y"}, "postgresql://"),
    "nobody at the database": (
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


@pytest.mark.parametrize(("environment", "said"), NOT_CONFIGURED.values(), ids=NOT_CONFIGURED)
def test_what_is_not_configured_does_not_start_and_says_what_to_set(
    home: Path, environment: Environment, said: str
) -> None:
    refused = run_command("serve", home=home, environment=environment)

    assert (refused.exit_code, refused.stdout) == (1, "")
    assert said in refused.stderr
    assert "Traceback" not in refused.stderr
    assert "pass@" not in refused.stderr
    assert list(home.iterdir()) == []


@pytest.mark.parametrize("arguments", USAGE, ids=" ".join)
def test_what_is_not_understood_is_answered_with_how_it_is_used(home: Path, arguments: list[str]) -> None:
    refused = run_command(*arguments, home=home, environment=BASE_SETTINGS)

    assert refused.exit_code == 2
    assert "Usage: latchkey" in refused.stderr
    assert list(home.iterdir()) == []


@pytest.mark.parametrize("option", ["--help", "-h", "--version"])
def test_help_and_version_are_no_errors(home: Path, option: str) -> None:
    done = run_command(option, home=home, environment={})

    assert (done.exit_code, done.stderr) == (0, "")
    assert "latchkey" in done.stdout


def test_a_database_without_a_schema_is_not_served(home: Path, empty_database_url: str) -> None:
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
def test_a_database_that_would_not_keep_users_apart_is_not_served(home: Path, postgresql_url: str, damage: str) -> None:
    environment = {**BASE_SETTINGS, "LATCHKEY_DATABASE_URL": postgresql_url}
    asyncio.run(_execute(postgresql_url, damage))
    refused = run_command("serve", home=home, environment=environment)
    examined = run_command("doctor", home=home, environment=environment)

    assert (refused.exit_code, examined.exit_code) == (1, 1)
    assert damage.split()[2 if "POLICY" not in damage else 4] in refused.stderr
    assert "FAIL" in examined.stdout


def test_an_address_that_is_taken_is_named(home: Path, sqlite_url: str) -> None:
    environment = {**BASE_SETTINGS, "LATCHKEY_DATABASE_URL": sqlite_url}
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        refused = run_command("serve", "--port", str(port), home=home, environment=environment)

    assert refused.exit_code == 1
    assert refused.stderr.splitlines()[-1].startswith(f"latchkey: Cannot listen on 127.0.0.1:{port}")


async def _execute(url: str, statement: str) -> None:
    connection = await asyncpg.connect(url)
    try:
        await connection.execute(statement)
    finally:
        await connection.close()


@pytest.mark.parametrize("command", [["migrate"], ["serve", "--migrate"]], ids=" ".join)
def test_a_database_that_cannot_be_reached_is_no_bug(home: Path, command: list[str]) -> None:
    url = f"postgresql://ada:s3cret-of-ada@127.0.0.1:{free_port()}/nothing"
    refused = run_command(*command, home=home, environment={**BASE_SETTINGS, "LATCHKEY_DATABASE_URL": url})

    assert refused.exit_code == 1
    assert "The database cannot be reached" in refused.stderr
    assert "Traceback" not in refused.stderr
    assert "s3cret-of-ada" not in refused.stdout + refused.stderr
