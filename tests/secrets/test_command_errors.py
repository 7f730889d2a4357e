"""Redaction: the error messages of commands contain no secrets."""

import secrets
from pathlib import Path

import pytest

from latchkey.testing.processes import free_port
from tests.e2e.service_process import Environment, match_line, run_command, running_service
from tests.secrets.canary import Canary, find_leaks
from tests.secrets.captured_output import CapturedOutput

AUTH = Canary.create("auth", "auth-{}")
PASSWORD = Canary.create("password", "pass/word@{}")
KEY = Canary.create("key", "key-{}")
TOKEN = Canary.create("token", "lk_{}")
CANARIES = [AUTH, PASSWORD, KEY, TOKEN]

GIVEN = {
    "LATCHKEY_AUTH_SECRET": AUTH.text,
    "OPENAI_API_KEY": KEY.text,
    "ANTHROPIC_API_KEY": KEY.text,
    "LATCHKEY_CONTEXT_TOKEN": TOKEN.text,
    "LATCHKEY_DATABASE_URL": f"postgresql://ada:{PASSWORD.text}@127.0.0.1:{{port}}/latchkey",
}
FAULTS: dict[str, Environment] = {
    "no database server": {},
    "an unknown host": {"LATCHKEY_DATABASE_URL": f"postgresql://ada:{PASSWORD.text}@db.invalid/latchkey"},
    "an unknown parameter": {"LATCHKEY_DATABASE_URL": f"postgresql://ada@db.invalid/x?password={PASSWORD.text}"},
    "an invalid port": {"LATCHKEY_DATABASE_URL": f"postgresql://ada@db.invalid:{PASSWORD.core}/latchkey"},
    "a password that was not encoded": {"LATCHKEY_DATABASE_URL": f"postgresql://ada:p@ss?{PASSWORD.core}@db.invalid/x"},
    "no URL at all": {"LATCHKEY_DATABASE_URL": PASSWORD.text},
    "an unknown scheme": {"LATCHKEY_DATABASE_URL": f"mysql://ada:{PASSWORD.text}@db.invalid/latchkey"},
    "a user in an address": {"OPENAI_BASE_URL": f"https://ada:{KEY.text}@model.example/v1"},
    "a secret under a wrong name": {"LATCHKEY_AUTH_SECERT": AUTH.text, "LATCHKEY_TURN_LEASE_S": KEY.text},
    "a secret in place of a path": {"LATCHKEY_INSTRUCTIONS": KEY.text, "LATCHKEY_CLAUDE_CLI": "/" + KEY.text},
    "two identities": {"LATCHKEY_AUTH_JWKS_URL": f"https://auth.example/jwks?key={KEY.text}"},
    "a short secret": {"LATCHKEY_AUTH_SECRET": AUTH.core[:31]},
}


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("command", ["serve", "migrate", "mcp", "doctor", "token ada"])
def test_redaction_of_secrets_in_command_errors(home: Path, command: str, fault: str) -> None:
    given = {**GIVEN, **FAULTS[fault]}
    given["LATCHKEY_DATABASE_URL"] = given["LATCHKEY_DATABASE_URL"].format(port=free_port())
    done = run_command(*command.split(), home=home, environment=given)
    output = {"stdout": done.stdout.encode(), "stderr": done.stderr.encode()}

    assert done.exit_code in ({0, 1} if command == "token ada" else {1, 70})
    assert done.stdout + done.stderr
    assert find_leaks(CANARIES, output) == set()


@pytest.mark.parametrize("token", [TOKEN.text, "eyJhbGciOiJub25lIn0.e30.", KEY.text], ids=["lk_", "a JWT", "a key"])
def test_redaction_of_an_invalid_context_token_in_stdio_mode(home: Path, sqlite_url: str, token: str) -> None:
    given = {"LATCHKEY_DATABASE_URL": sqlite_url, "LATCHKEY_CONTEXT_TOKEN": token}
    refused = run_command("mcp", home=home, environment=given)

    assert (refused.exit_code, refused.stdout) == (1, "")
    assert token[3:] not in refused.stderr


def test_redaction_of_the_development_signing_key(home: Path) -> None:
    """The user's token is printed at the start, which is the purpose of `--dev`."""
    key = Canary.from_secret("signing key", secrets.token_hex(32))
    (home / "var").mkdir(mode=0o700)
    key_file = home / "var" / "signing.key"
    key_file.touch(mode=0o600)
    key_file.write_text(key.text)
    output = CapturedOutput()
    with running_service("--dev", home=home, environment={}, ready="curl -s") as replica:
        token = match_line(replica.log_text, "^TOKEN=(.+)$")
        minted = replica.request("POST", "/api/me/context-tokens", token, json={"grants": ["tasks:read"]}).json()[
            "token"
        ]
        for path in ("/api/me/tasks", "/api/you/tasks", "/api/me/context-tokens", "/schema/openapi.json"):
            answer = replica.request("GET", path, token)
            output.put("answers", str(answer.headers).encode(), answer.content)
        output.put("output", replica.log_text.encode())
        key_file.unlink()  # the file itself may contain the key; nothing else may
        output.capture_files(home)
    tokens = Canary.from_secret("user's token", token), Canary.from_secret("context token", minted)

    assert b"SQLite format 3" in output["files"]
    assert find_leaks([key], output) == set()
    assert find_leaks(tokens, output) == {("user's token", "output")}
    assert replica.log_text.count(token) == 2


def test_redaction_of_tokens_while_the_identity_provider_is_unavailable(home: Path, sqlite_url: str) -> None:
    """Also of a credential that is not a JWT."""
    provider = f"http://127.0.0.1:{free_port()}"
    token = Canary.create("token", "eyJhbGciOiJFZERTQSIsImtpZCI6ImEifQ.eyJzdWIiOiJhZGEifQ.{}")
    given = {
        "LATCHKEY_DATABASE_URL": sqlite_url,
        "LATCHKEY_AUTH_JWKS_URL": f"{provider}/jwks",
        "LATCHKEY_AUTH_ISSUER": provider,
        "LATCHKEY_AUTH_AUDIENCE": provider,
    }
    output = CapturedOutput()
    with running_service(home=home, environment=given) as replica:
        for presented, status in ((token.text, 503), (token.core, 401)):
            for method, path in (("GET", "/api/ada/tasks"), ("POST", "/mcp")):
                answer = replica.request(method, path, presented)
                output.put("answers", str(answer.headers).encode(), answer.content)
                assert answer.status_code == status
        output.put("log", replica.log_text.encode())

    assert find_leaks([token], output) == set()
