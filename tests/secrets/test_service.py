"""Secrets are planted wherever the service has one; then it lives through everything, and they are looked for."""

import re
from contextlib import suppress
from pathlib import Path

import pytest

from tests.e2e.service_process import Environment, running_service
from tests.fakes.model_server import model_server
from tests.polling import wait_until_sync
from tests.postgresql import PostgreSQL
from tests.secrets.canary import Canary, sightings
from tests.secrets.haul import Haul
from tests.secrets.life import Life, Models, a_life

MAY_BE_SEEN = {
    ("minted token", "answer to POST /api/ada/context-tokens"),
    ("turn's token", "environment"),
    ("anthropic", "environment"),
}
"""A token where it is handed out, and what a process must be given to do its work: others cannot see that."""
TOKEN = re.compile(rb"lk_[\w-]{8,}")
"""Any context token, also those of turns that no test could lay hands on."""


@pytest.fixture
def planted(password: Canary) -> dict[str, Canary]:
    """None of them looks like what it is: to know them by their shape is the last defence and not the first."""
    return {name: Canary.hatch(name, name + "-{}-key") for name in ("auth", "openai", "anthropic")} | {
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


async def live(life: Life, server: PostgreSQL, database: str) -> None:
    await life.talk()
    await life.make_files()
    await life.mint()
    await life.misplace()
    await life.read_everything()
    await life.haul.dump(server.superuser_url(database))
    await life.break_down(server, database)
    life.end()


async def test_no_secret_is_seen_where_it_does_not_belong(
    home: Path, guarded_url: str, planted: dict[str, Canary], postgresql_server: PostgreSQL
) -> None:
    """In no log, answer, argument, environment, file, row or prompt, whatever went wrong."""
    database = guarded_url.rpartition("/")[2]
    async with model_server() as chat, model_server() as files:
        models = Models(chat, files)
        async with a_life(home, environment(guarded_url, models, planted), models, planted) as life:
            await live(life, postgresql_server, database)
    haul = life.haul

    assert {"log", "arguments", "environment", "files", "model", "table tasks", "table context_tokens"} <= haul.keys()
    assert {200, 201, 204, 400, 401, 403, 404, 405, 422, 500, 502, 503} <= haul.statuses
    assert b"Traceback" in haul["log"]
    assert b"--mcp-config" in haul["arguments"]
    assert b"Buy milk" in haul["table tasks"]
    assert len(life.canaries) == 7
    assert sightings(life.canaries, haul) == MAY_BE_SEEN
    assert {place for place, text in haul.items() if TOKEN.search(text)} == {place for _, place in MAY_BE_SEEN}
    assert "server" not in {line.split(b":")[0].decode() for line in haul["answer to GET /health/live"].splitlines()}


def test_no_worker_is_told_a_secret_by_its_arguments(home: Path, guarded_url: str, planted: dict[str, Canary]) -> None:
    """Which everybody on the machine can read, as they cannot read its environment."""
    given = {"LATCHKEY_DATABASE_URL": guarded_url, "LATCHKEY_AUTH_SECRET": planted["auth"].text}
    haul = Haul()
    with running_service("--workers", "2", home=home, environment=given) as replica:
        wait_until_sync(lambda: replica.request("GET", "/health/ready").is_success)
        processes = [process for process in Path("/proc").glob("[0-9]*") if knows(process, planted["auth"])]
        haul.put("arguments", *((process / "cmdline").read_bytes() for process in processes))
        replica.process.terminate()
        replica.process.join()
    haul.put("log", replica.log_text.encode())

    assert len(processes) >= 2
    assert sightings(planted.values(), haul) == set()


def knows(process: Path, canary: Canary) -> bool:
    """Whether it was started with that in its environment."""
    with suppress(OSError):
        return canary.text.encode() in (process / "environ").read_bytes()
    return False
