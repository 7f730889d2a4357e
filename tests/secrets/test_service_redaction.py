"""Redaction: canaries stand for all secrets of a service, and none of them appears in anything that leaves it."""

import re
from pathlib import Path

import pytest

from latchkey.testing.postgresql import PostgreSQL
from tests.e2e.service_process import Environment, running_service
from tests.fakes.model_server import model_server
from tests.polling import wait_until_sync
from tests.secrets.canary import Canary, find_leaks
from tests.secrets.captured_output import CapturedOutput
from tests.secrets.service_scenario import Models, ServiceScenario, service_scenario

ALLOWED_LEAKS = {
    ("minted token", "response to POST /api/ada/context-tokens"),
    ("turn's token", "environment"),
    ("anthropic", "environment"),
}
"""Allowed places: the response that mints a token, and the environment of the agent's process, which is private."""
TOKEN = re.compile(rb"lk_[\w-]{8,}")
"""Any context token, also the tokens of turns, which the test does not know."""


@pytest.fixture
def planted(password: Canary) -> dict[str, Canary]:
    """None has the form of a known credential, because redaction by form is only the last defence."""
    return {name: Canary.create(name, name + "-{}-key") for name in ("auth", "openai", "anthropic")} | {
        "password": password
    }


def environment(url: str, models: Models, planted: dict[str, Canary]) -> Environment:
    return {
        "LATCHKEY_DATABASE_URL": url,
        "LATCHKEY_AUTH_SECRET": planted["auth"].text,
        "LATCHKEY_AGENT": "openai",
        "LATCHKEY_FILE_AGENT": "claude",
        "LATCHKEY_MODEL": "fake",
        "LATCHKEY_CLAUDE_MODEL": "fake",
        "OPENAI_API_KEY": planted["openai"].text,
        "OPENAI_BASE_URL": models.chat.base_url,
        "ANTHROPIC_API_KEY": planted["anthropic"].text,
        "ANTHROPIC_BASE_URL": models.files.base_url.removesuffix("/v1"),
    }


async def run_all(scenario: ServiceScenario, server: PostgreSQL, database: str) -> None:
    await scenario.run_turns()
    await scenario.run_file_turns()
    await scenario.use_minted_token()
    await scenario.send_misplaced_credentials()
    await scenario.read_everything()
    await scenario.output.capture_tables(server.superuser_url(database))
    await scenario.break_database(server, database)
    scenario.stop()


async def test_redaction_of_all_secrets_in_everything_that_leaves_the_service(
    home: Path, guarded_url: str, planted: dict[str, Canary], postgresql_server: PostgreSQL
) -> None:
    """Logs, responses, arguments, environments, files, rows and prompts, in successes and failures."""
    database = guarded_url.rpartition("/")[2]
    async with model_server() as chat, model_server() as files:
        models = Models(chat, files)
        async with service_scenario(home, environment(guarded_url, models, planted), models, planted) as scenario:
            await run_all(scenario, postgresql_server, database)
    output = scenario.output

    assert {"log", "arguments", "environment", "files", "model", "table tasks", "table context_tokens"} <= output.keys()
    assert {200, 201, 204, 400, 401, 403, 404, 405, 422, 500, 502, 503} <= output.statuses
    assert b"Traceback" in output["log"]
    assert b"--mcp-config" in output["arguments"]
    assert b"Buy milk" in output["table tasks"]
    assert len(scenario.canaries) == 7
    assert find_leaks(scenario.canaries, output) == ALLOWED_LEAKS
    assert {place for place, text in output.items() if TOKEN.search(text)} == {place for _, place in ALLOWED_LEAKS}
    assert "server" not in {
        line.split(b":")[0].decode() for line in output["response to GET /health/live"].splitlines()
    }


def test_redaction_of_secrets_in_worker_arguments(home: Path, guarded_url: str, planted: dict[str, Canary]) -> None:
    """All accounts on the machine can read arguments; only the owner can read the environment."""
    given = {"LATCHKEY_DATABASE_URL": guarded_url, "LATCHKEY_AUTH_SECRET": planted["auth"].text}
    output = CapturedOutput()
    with running_service("--workers", "2", home=home, environment=given) as replica:
        wait_until_sync(lambda: replica.request("GET", "/health/ready").is_success)
        assert replica.process.pid
        processes = processes_of(replica.process.pid)
        output.put("arguments", *((process / "cmdline").read_bytes() for process in processes))
        replica.process.terminate()
        replica.process.join()
    output.put("log", replica.log_text.encode())

    assert len(processes) >= 2
    assert find_leaks(planted.values(), output) == set()


def processes_of(pid: int) -> list[Path]:
    """The folders in /proc of the process and of all that it has started."""
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return [Path(f"/proc/{pid}"), *(folder for child in children for folder in processes_of(int(child)))]
