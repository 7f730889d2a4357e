"""Warnings of `latchkey doctor`: valid but risky settings."""

import asyncio
import os
import secrets
from pathlib import Path

import pytest

from tests.e2e.service_process import Environment, run_command, running_service
from tests.fakes.jwks_provider import JwksProvider, SigningKey

RANDOM = {"LATCHKEY_AUTH_SECRET": secrets.token_hex(32), "LATCHKEY_AGENT": "rehearsal"}
WEAK = "change me, change me, change me, change me"


def examined(home: Path, environment: Environment) -> dict[str, tuple[str, str]]:
    """Mark and text of each check, by its name. No check may fail."""
    result = run_command("doctor", home=home, environment=environment)
    assert result.exit_code == 0, result.stdout + result.stderr
    assert WEAK not in result.stdout + result.stderr
    checks = (line.partition(": ") for line in result.stdout.splitlines())
    return {head[5:]: (head[:5].strip(), text) for head, _, text in checks}


@pytest.fixture
def safe_settings(sqlite_url: str) -> Environment:
    """Settings without any warning."""
    Path(sqlite_url.partition("///")[2]).chmod(0o600)
    return {**RANDOM, "LATCHKEY_DATABASE_URL": sqlite_url}


def test_doctor_with_safe_settings_warns_of_nothing(home: Path, safe_settings: Environment) -> None:
    checks = examined(home, safe_settings)
    precautions = {"secret", "urls", "origins", "database encryption", "files", "limits"}

    assert {name: checks[name][0] for name in precautions} == dict.fromkeys(precautions, "ok")
    assert checks["account"][0] == ("note" if os.geteuid() == 0 else "ok")


RISKY_SETTINGS = {
    "a secret of few different characters": ({"LATCHKEY_AUTH_SECRET": WEAK}, "secret", "openssl rand -hex 32"),
    "a public address without TLS": (
        {"LATCHKEY_PUBLIC_URL": "http://latchkey.example"},
        "urls",
        "LATCHKEY_PUBLIC_URL is plain http",
    ),
    "an issuer without TLS": (
        {"LATCHKEY_AUTH_ISSUER": "http://auth.example"},
        "urls",
        "LATCHKEY_AUTH_ISSUER is plain http",
    ),
    "a model without TLS": (
        {"OPENAI_BASE_URL": "http://model.example/v1"},
        "urls",
        "OPENAI_BASE_URL is plain http",
    ),
    "hosts without the public one": (
        {"LATCHKEY_PUBLIC_URL": "https://latchkey.example", "LATCHKEY_ALLOWED_HOSTS": "localhost"},
        "urls",
        "421",
    ),
    "pages without TLS": (
        {"LATCHKEY_ALLOWED_ORIGINS": "https://app.example,http://old.example"},
        "origins",
        "http://old.example",
    ),
    "a limit that limits nobody": (
        {"LATCHKEY_REQUESTS_PER_MINUTE": "9000000"},
        "limits",
        "LATCHKEY_REQUESTS_PER_MINUTE",
    ),
}


@pytest.mark.parametrize("case", RISKY_SETTINGS)
def test_doctor_warns_of_risky_setting(home: Path, safe_settings: Environment, case: str) -> None:
    settings, name, expected_text = RISKY_SETTINGS[case]
    checks = examined(home, {**safe_settings, **settings})

    assert checks[name][0] == "note"
    assert expected_text in checks[name][1]
    assert [other for other, (mark, _) in checks.items() if mark == "note" and other not in {name, "account"}] == []


def test_doctor_warns_of_files_with_open_permissions(home: Path, safe_settings: Environment) -> None:
    """Readable: the database, a key and an environment file. Writable: the instructions of the agent."""
    database = Path(safe_settings["LATCHKEY_DATABASE_URL"].partition("///")[2])
    (home / "var").mkdir()
    open_files = [home / "var" / "signing.key", home / ".env", database, home / "instructions.txt"]
    for path in open_files[:2] + open_files[3:]:
        path.write_text("You are kind.")
    for path, mode in zip(open_files, (0o644, 0o640, 0o604, 0o666), strict=True):
        path.chmod(mode)
    mark, text = examined(home, {**safe_settings, "LATCHKEY_INSTRUCTIONS": str(open_files[3])})["files"]

    assert mark == "note"
    assert [f"chmod 600 {path}" in text for path in ("var/signing.key", ".env", database)] == [True] * 3
    assert f"chmod go-w {open_files[3]}" in text


@pytest.mark.parametrize("options", ["", "?sslmode=prefer"])
def test_doctor_warns_of_unencrypted_database_connection(home: Path, options: str) -> None:
    """The database is also unreachable, which is a separate failure."""
    environment = {**RANDOM, "LATCHKEY_DATABASE_URL": f"postgresql://ada:{WEAK}@db.invalid/latchkey{options}"}
    clear = run_command("doctor", home=home, environment=environment)
    verified = {**environment, "LATCHKEY_DATABASE_URL": "postgresql://ada:x@db.invalid/latchkey?sslmode=verify-full"}
    encrypted = run_command("doctor", home=home, environment=verified)

    assert (clear.exit_code, encrypted.exit_code) == (1, 1)
    assert "note database encryption: the connection may be unencrypted" in clear.stdout
    assert "ok   database encryption" in encrypted.stdout
    assert WEAK not in clear.stdout + clear.stderr


def test_files_created_by_the_service_are_private(home: Path) -> None:
    """Folder, database and key are private even with the permissive umask of most shells."""
    with running_service("--dev", home=home, environment={}):
        modes = {path.name: oct(path.stat().st_mode & 0o777) for path in [home / "var", *(home / "var").iterdir()]}

    assert modes.pop("var") == "0o700"
    assert {"latchkey.db", "signing.key"} <= modes.keys()
    assert set(modes.values()) == {"0o600"}
    assert examined(home, RANDOM)["files"][0] == "ok"


async def test_doctor_fetches_jwks_of_provider(home: Path, sqlite_url: str) -> None:
    """Without keys the service could verify no token, so their absence is a failure."""
    async with JwksProvider(SigningKey("one"), SigningKey("two")) as provider:
        environment = {"LATCHKEY_DATABASE_URL": sqlite_url, **provider.variables}
        healthy = await asyncio.to_thread(run_command, "doctor", home=home, environment=environment)
        await provider.down()
        ill = await asyncio.to_thread(run_command, "doctor", home=home, environment=environment)

    assert healthy.exit_code == 0
    assert "identity: users are authenticated by: jwks, with 2 signing keys" in healthy.stdout
    assert ill.exit_code == 1
    assert "identity: LATCHKEY_AUTH_JWKS_URL returns no keys" in ill.stdout
