"""What the doctor warns of: the service would serve like that, and somebody might be sorry."""

import asyncio
import os
import secrets
import subprocess
import sys
from pathlib import Path

import pytest

from tests.e2e.service_process import Environment, run_command
from tests.fakes.jwks_provider import JwksProvider, SigningKey

RANDOM = {"LATCHKEY_AUTH_SECRET": secrets.token_hex(32), "LATCHKEY_AGENT": "rehearsal"}
WEAK = "change me, change me, change me, change me"


def examined(home: Path, environment: Environment) -> dict[str, tuple[str, str]]:
    """What was found of each thing: how it is marked, and what is said. The service could serve all the same."""
    done = run_command("doctor", home=home, environment=environment)
    assert done.exit_code == 0, done.stdout + done.stderr
    assert WEAK not in done.stdout + done.stderr
    found = (line.partition(": ") for line in done.stdout.splitlines())
    return {head[5:]: (head[:5].strip(), text) for head, _, text in found}


@pytest.fixture
def careful(sqlite_url: str) -> Environment:
    """Nothing to be said against it."""
    Path(sqlite_url.partition("///")[2]).chmod(0o600)
    return {**RANDOM, "LATCHKEY_DATABASE_URL": sqlite_url}


def test_whoever_is_careful_is_warned_of_nothing(home: Path, careful: Environment) -> None:
    found = examined(home, careful)
    precautions = {"secret", "urls", "origins", "database encryption", "files", "limits"}

    assert {name: found[name][0] for name in precautions} == dict.fromkeys(precautions, "ok")
    assert found["account"][0] == ("note" if os.geteuid() == 0 else "ok")


LAX = {
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


@pytest.mark.parametrize("lax", LAX)
def test_whoever_is_not_is_told_what_to_mend(home: Path, careful: Environment, lax: str) -> None:
    settings, name, said = LAX[lax]
    found = examined(home, {**careful, **settings})

    assert found[name][0] == "note"
    assert said in found[name][1]
    assert [other for other, (mark, _) in found.items() if mark == "note" and other not in {name, "account"}] == []


def test_files_that_others_may_read_or_write(home: Path, careful: Environment) -> None:
    """The database with everybody's data, a key, an environment file; and instructions that others could rewrite."""
    database = Path(careful["LATCHKEY_DATABASE_URL"].partition("///")[2])
    (home / "var").mkdir()
    loose = [home / "var" / "signing.key", home / ".env", database, home / "instructions.txt"]
    for path in loose[:2] + loose[3:]:
        path.write_text("You are kind.")
    for path, mode in zip(loose, (0o644, 0o640, 0o604, 0o666), strict=True):
        path.chmod(mode)
    mark, text = examined(home, {**careful, "LATCHKEY_INSTRUCTIONS": str(loose[3])})["files"]

    assert mark == "note"
    assert [f"chmod 600 {path}" in text for path in ("var/signing.key", ".env", database)] == [True] * 3
    assert f"chmod go-w {loose[3]}" in text


@pytest.mark.parametrize("options", ["", "?sslmode=prefer"])
def test_a_database_elsewhere_that_may_be_talked_to_in_the_clear(home: Path, options: str) -> None:
    """It is not there at all, which is another finding, and the one that stops the service."""
    environment = {**RANDOM, "LATCHKEY_DATABASE_URL": f"postgresql://ada:{WEAK}@db.invalid/latchkey{options}"}
    clear = run_command("doctor", home=home, environment=environment)
    verified = {**environment, "LATCHKEY_DATABASE_URL": "postgresql://ada:x@db.invalid/latchkey?sslmode=verify-full"}
    encrypted = run_command("doctor", home=home, environment=verified)

    assert (clear.exit_code, encrypted.exit_code) == (1, 1)
    assert "note database encryption: the connection may be unencrypted" in clear.stdout
    assert "ok   database encryption" in encrypted.stdout
    assert WEAK not in clear.stdout + clear.stderr


def test_what_the_service_makes_itself_needs_no_warning(home: Path) -> None:
    """Its folder, database and key are its owner's alone, whatever the account lets others do."""
    environment = {"PATH": os.environ["PATH"], "PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, "-m", "latchkey", "migrate"]
    subprocess.run(command, cwd=home, env=environment, umask=0o022, check=True)
    minted = run_command("token", "ada", home=home, environment={})
    modes = {path.name: oct(path.stat().st_mode & 0o777) for path in [home / "var", *(home / "var").iterdir()]}

    assert minted.exit_code == 0
    assert modes.pop("var") == "0o700"
    assert {"latchkey.db", "signing.key"} <= modes.keys()
    assert set(modes.values()) == {"0o600"}
    assert examined(home, RANDOM)["files"][0] == "ok"


async def test_the_provider_is_asked_for_its_keys(home: Path, sqlite_url: str) -> None:
    """As the service would: without any, it could let nobody in."""
    async with JwksProvider(SigningKey("one"), SigningKey("two")) as provider:
        environment = {"LATCHKEY_DATABASE_URL": sqlite_url, **provider.variables}
        healthy = await asyncio.to_thread(run_command, "doctor", home=home, environment=environment)
        await provider.down()
        ill = await asyncio.to_thread(run_command, "doctor", home=home, environment=environment)

    assert healthy.exit_code == 0
    assert "identity: users are authenticated by: jwks, with 2 signing keys" in healthy.stdout
    assert ill.exit_code == 1
    assert "identity: LATCHKEY_AUTH_JWKS_URL returns no keys" in ill.stdout
