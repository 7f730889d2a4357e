"""The commands `token`, `migrate`, `doctor` and `mcp`."""

import json
from base64 import urlsafe_b64decode
from pathlib import Path

import pytest
from mcp import Client, StdioServerParameters

from latchkey.infrastructure.agents.claude.cli import TESTED_VERSION
from tests.e2e.service_process import BASE_SETTINGS, LATCHKEY, Environment, run_command, running_service
from tests.integration.claude.claude_harness import fake_cli


def claims(token: str) -> dict[str, object]:
    body = token.split(".")[1]
    payload: dict[str, object] = json.loads(urlsafe_b64decode(body + "=" * (-len(body) % 4)))
    return payload


@pytest.mark.parametrize(("ttl", "seconds"), [([], 3600), (["--ttl", "30s"], 30), (["--ttl", "7d"], 7 * 86_400)])
def test_token_command_prints_only_the_token(home: Path, ttl: list[str], seconds: int) -> None:
    result = run_command("token", "auth0|ada", *ttl, home=home, environment=BASE_SETTINGS)
    issued = claims(result.stdout.strip())

    assert (result.exit_code, result.stdout.count("\n")) == (0, 1)
    assert result.stderr == "latchkey: signed with LATCHKEY_AUTH_SECRET\n"
    assert (issued["sub"], issued["iss"], issued["aud"]) == ("auth0|ada", "latchkey", "latchkey")
    assert int(str(issued["exp"])) - int(str(issued["iat"])) == seconds


def test_token_command_without_key_fails_and_makes_none(home: Path) -> None:
    """A new key would sign tokens that no service accepts."""
    refused = run_command("token", "ada", home=home, environment={})

    assert (refused.exit_code, refused.stdout) == (1, "")
    assert str(home / "var" / "signing.key") in refused.stderr
    assert "serve --dev" in refused.stderr
    assert "LATCHKEY_AUTH_SECRET" in refused.stderr
    assert list(home.iterdir()) == []


def test_token_command_names_the_development_key(home: Path) -> None:
    key = home / "var" / "signing.key"
    key.parent.mkdir(mode=0o700)
    key.touch(mode=0o600)
    key.write_text("k" * 64)
    result = run_command("token", "ada+bikes@example.com", home=home, environment={})

    assert (result.exit_code, result.stderr) == (0, f"latchkey: signed with the key of --dev, {key}\n")
    assert claims(result.stdout.strip())["sub"] == "ada+bikes@example.com"


def test_token_command_with_jwks_provider_fails(home: Path) -> None:
    provider = dict.fromkeys(("LATCHKEY_AUTH_ISSUER", "LATCHKEY_AUTH_AUDIENCE"), "https://auth.example")
    environment = {"LATCHKEY_AUTH_JWKS_URL": "https://auth.example/jwks", **provider}
    refused = run_command("token", "ada", home=home, environment=environment)

    assert (refused.exit_code, refused.stdout) == (1, "")
    assert "LATCHKEY_AUTH_JWKS_URL" in refused.stderr


def test_migrate_twice_is_idempotent(home: Path, empty_database_url: str) -> None:
    environment = {**BASE_SETTINGS, "LATCHKEY_DATABASE_URL": empty_database_url}
    before = run_command("doctor", home=home, environment=environment)
    codes = [run_command("migrate", home=home, environment=environment).exit_code for _ in range(2)]
    after = run_command("doctor", home=home, environment=environment)

    assert codes == [0, 0]
    assert (before.exit_code, after.exit_code) == (1, 0)
    assert "latchkey migrate" in before.stdout
    assert "FAIL" not in after.stdout


def test_serve_with_migrate_option_migrates_first(home: Path, empty_database_url: str) -> None:
    environment = {**BASE_SETTINGS, "LATCHKEY_DATABASE_URL": empty_database_url}
    with running_service("--migrate", home=home, environment=environment) as replica:
        assert replica.request("GET", "/health/ready").json() == {"status": "ready"}


def test_doctor_reports_each_failed_check(home: Path, sqlite_url: str) -> None:
    examined = run_command("doctor", home=home, environment={"LATCHKEY_DATABASE_URL": sqlite_url})
    marks = {line.split(":")[0] for line in examined.stdout.splitlines()}

    assert examined.exit_code == 1
    assert marks >= {"FAIL identity", "ok   database", "note agent", "note file agent", "ok   claude cli"}
    assert "LATCHKEY_AUTH_SECRET" in examined.stdout


def test_doctor_reports_file_agent_and_cli_version(home: Path, sqlite_url: str) -> None:
    """Another version than the tested one is a note. A CLI that is needed and does not run is a failure."""
    old = fake_cli(home, "print('2.0.0 (Claude Code)')")
    configured = {**BASE_SETTINGS, "LATCHKEY_DATABASE_URL": sqlite_url, "ANTHROPIC_API_KEY": "sk-very-secret"}
    environments = [configured, {**configured, "LATCHKEY_CLAUDE_CLI": str(old)}]
    tested, other = [run_command("doctor", home=home, environment=environment) for environment in environments]
    old.write_text("#!/bin/sh\nexit 3\n")
    broken = run_command("doctor", home=home, environment=environments[1])

    assert (tested.exit_code, other.exit_code, broken.exit_code) == (0, 0, 1)
    assert "ok   file agent: claude creates files" in tested.stdout
    assert f"version {TESTED_VERSION}, the tested version" in tested.stdout
    assert f"note claude cli: {old} is version 2.0.0; the tested version is {TESTED_VERSION}" in other.stdout
    assert "FAIL claude cli" in broken.stdout
    assert "sk-very" not in tested.stdout + other.stdout + broken.stdout


@pytest.mark.parametrize(
    "agent",
    [{"LATCHKEY_AGENT": "claude"}, {"LATCHKEY_FILE_AGENT": "claude"}, {"LATCHKEY_CLAUDE_CLI": "/does/not/exist"}],
    ids=str,
)
def test_doctor_fails_for_unusable_agent(home: Path, sqlite_url: str, agent: Environment) -> None:
    examined = run_command(
        "doctor", home=home, environment={**BASE_SETTINGS, "LATCHKEY_DATABASE_URL": sqlite_url, **agent}
    )

    assert examined.exit_code == 1
    assert "FAIL agent" in examined.stdout


def test_doctor_output_contains_no_secret(home: Path, postgresql_url: str) -> None:
    environment = {**BASE_SETTINGS, "LATCHKEY_DATABASE_URL": postgresql_url, "OPENAI_API_KEY": "sk-very-secret"}
    examined = run_command("doctor", home=home, environment=environment)

    assert examined.exit_code == 0
    assert not any(one in examined.stdout for one in (BASE_SETTINGS["LATCHKEY_AUTH_SECRET"], "sk-very", "owner@"))


async def test_mcp_stdio_with_context_token_of_service_calls_tools(
    home: Path, configured: Environment, token: str
) -> None:
    """The MCP process has only the database URL and the context token, and no identity settings."""
    with running_service(home=home, environment=configured) as replica:
        asked = {"grants": ["tasks:read", "tasks:write"]}
        minted = replica.request("POST", "/api/ada/context-tokens", token, json=asked).json()
        environment = {
            "LATCHKEY_DATABASE_URL": configured["LATCHKEY_DATABASE_URL"],
            "LATCHKEY_CONTEXT_TOKEN": minted["token"],
        }
        program = StdioServerParameters(command=str(LATCHKEY), args=["mcp"], env=environment, cwd=home)
        async with Client(program) as client:
            added = await client.call_tool("add_task", {"title": "Buy milk"})
        tasks = replica.request("GET", "/api/ada/tasks", token).json()["items"]
        replica.request("DELETE", f"/api/ada/context-tokens/{minted['id']}", token)
    refused = run_command("mcp", home=home, environment=environment)

    assert tasks == [added.structured_content]
    assert (refused.exit_code, refused.stdout) == (1, "")
    assert refused.stderr.startswith("latchkey: ")
