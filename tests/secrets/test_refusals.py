"""Whatever a command refuses, or breaks on, it does so without a word of the secrets that it was given."""

import secrets
from pathlib import Path

import pytest

from tests.e2e.service_process import Environment, match_line, run_command, running_service
from tests.process_supervision import free_port
from tests.secrets.canary import Canary, sightings
from tests.secrets.haul import Haul

AUTH = Canary.hatch("auth", "auth-{}")
PASSWORD = Canary.hatch("password", "pass/word@{}")
KEY = Canary.hatch("key", "key-{}")
TOKEN = Canary.hatch("token", "lk_{}")
CANARIES = [AUTH, PASSWORD, KEY, TOKEN]

GIVEN = {
    "LATCHKEY_AUTH_SECRET": AUTH.text,
    "OPENAI_API_KEY": KEY.text,
    "ANTHROPIC_API_KEY": KEY.text,
    "LATCHKEY_CONTEXT_TOKEN": TOKEN.text,
    "LATCHKEY_DATABASE_URL": f"postgresql://ada:{PASSWORD.text}@127.0.0.1:{{port}}/latchkey",
}
FAULTS: dict[str, Environment] = {
    "nobody listens": {},
    "a host that is not there": {"LATCHKEY_DATABASE_URL": f"postgresql://ada:{PASSWORD.text}@db.invalid/latchkey"},
    "a parameter that is none": {"LATCHKEY_DATABASE_URL": f"postgresql://ada@db.invalid/x?password={PASSWORD.text}"},
    "a port that is none": {"LATCHKEY_DATABASE_URL": f"postgresql://ada@db.invalid:{PASSWORD.core}/latchkey"},
    "a password that was not encoded": {"LATCHKEY_DATABASE_URL": f"postgresql://ada:p@ss?{PASSWORD.core}@db.invalid/x"},
    "no URL at all": {"LATCHKEY_DATABASE_URL": PASSWORD.text},
    "a scheme that is none": {"LATCHKEY_DATABASE_URL": f"mysql://ada:{PASSWORD.text}@db.invalid/latchkey"},
    "a user in an address": {"OPENAI_BASE_URL": f"https://ada:{KEY.text}@model.example/v1"},
    "a secret under a wrong name": {"LATCHKEY_AUTH_SECERT": AUTH.text, "LATCHKEY_TURN_LEASE_S": KEY.text},
    "a secret where a path belongs": {"LATCHKEY_INSTRUCTIONS": KEY.text, "LATCHKEY_CLAUDE_CLI": "/" + KEY.text},
    "two identities": {"LATCHKEY_AUTH_JWKS_URL": f"https://auth.example/jwks?key={KEY.text}"},
    "a secret that is short": {"LATCHKEY_AUTH_SECRET": AUTH.core[:31]},
}


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("command", ["serve", "migrate", "mcp", "doctor", "token ada"])
def test_a_command_that_cannot_do_its_work(home: Path, command: str, fault: str) -> None:
    given = {**GIVEN, **FAULTS[fault]}
    given["LATCHKEY_DATABASE_URL"] = given["LATCHKEY_DATABASE_URL"].format(port=free_port())
    done = run_command(*command.split(), home=home, environment=given)
    said = {"stdout": done.stdout.encode(), "stderr": done.stderr.encode()}

    assert done.exit_code in ({0, 1} if command == "token ada" else {1, 70})
    assert done.stdout + done.stderr
    assert sightings(CANARIES, said) == set()


@pytest.mark.parametrize("token", [TOKEN.text, "eyJhbGciOiJub25lIn0.e30.", KEY.text], ids=["lk_", "a JWT", "a key"])
def test_tools_for_a_token_that_opens_nothing(home: Path, sqlite_url: str, token: str) -> None:
    given = {"LATCHKEY_DATABASE_URL": sqlite_url, "LATCHKEY_CONTEXT_TOKEN": token}
    refused = run_command("mcp", home=home, environment=given)

    assert (refused.exit_code, refused.stdout) == (1, "")
    assert token[3:] not in refused.stderr


def test_the_key_of_a_service_for_development_stays_in_its_file(home: Path) -> None:
    """Its user's token is shown, once, to whoever started it; that is what `--dev` is for."""
    key = Canary.found("signing key", secrets.token_hex(32))
    (home / "var").mkdir(mode=0o700)
    key_file = home / "var" / "signing.key"
    key_file.touch(mode=0o600)
    key_file.write_text(key.text)
    haul = Haul()
    with running_service("--dev", home=home, environment={}, ready="curl -s") as replica:
        token = match_line(replica.log_text, "^TOKEN=(.+)$")
        minted = replica.request("POST", "/api/me/context-tokens", token, json={"grants": ["tasks:read"]}).json()[
            "token"
        ]
        for path in ("/api/me/tasks", "/api/you/tasks", "/api/me/context-tokens", "/schema/openapi.json"):
            answer = replica.request("GET", path, token)
            haul.put("answers", str(answer.headers).encode(), answer.content)
        haul.put("output", replica.log_text.encode())
        key_file.unlink()  # only now, and it is nowhere else
        haul.look_through(home)
    shown = Canary.found("user's token", token), Canary.found("context token", minted)

    assert b"SQLite format 3" in haul["files"]
    assert sightings([key], haul) == set()
    assert sightings(shown, haul) == {("user's token", "output")}
    assert replica.log_text.count(token) == 2


def test_a_provider_that_is_down_is_told_of_without_the_token(home: Path, sqlite_url: str) -> None:
    """Nor is it kept when it is no token at all."""
    provider = f"http://127.0.0.1:{free_port()}"
    token = Canary.hatch("token", "eyJhbGciOiJFZERTQSIsImtpZCI6ImEifQ.eyJzdWIiOiJhZGEifQ.{}")
    given = {
        "LATCHKEY_DATABASE_URL": sqlite_url,
        "LATCHKEY_AUTH_JWKS_URL": f"{provider}/jwks",
        "LATCHKEY_AUTH_ISSUER": provider,
        "LATCHKEY_AUTH_AUDIENCE": provider,
    }
    haul = Haul()
    with running_service(home=home, environment=given) as replica:
        for presented, status in ((token.text, 503), (token.core, 401)):
            for method, path in (("GET", "/api/ada/tasks"), ("POST", "/mcp")):
                answer = replica.request(method, path, presented)
                haul.put("answers", str(answer.headers).encode(), answer.content)
                assert answer.status_code == status
        haul.put("log", replica.log_text.encode())

    assert sightings([token], haul) == set()
