"""The environment, the arguments and the files of the CLI: they have the turn's token and no other secret of ours."""

import json
import re
from asyncio import Event
from pathlib import Path

import pytest

from latchkey.domain.agent import TextDelta
from latchkey.domain.errors import ModelUnavailable
from tests.contract.agents.agent_harness import API_KEY
from tests.fakes.model_script import says
from tests.integration.claude.claude_harness import ClaudeHarness, claude_harness, fake_cli

RECORDER = """
import json, os, pathlib, stat, sys
home = pathlib.Path.cwd().parent
folders = [home.parent, home, *filter(pathlib.Path.is_dir, home.iterdir())]
mode = lambda path: oct(stat.S_IMODE(path.stat().st_mode))
seen = {
    "arguments": sys.argv[1:],
    "environment": dict(os.environ),
    "work": os.listdir(),
    "folders": [mode(path) for path in folders],
    "files": {path.name: [mode(path), path.read_text()] for path in home.iterdir() if path.is_file()},
    "group_of_its_own": os.getpgrp() == os.getpid(),
}
pathlib.Path(%r).write_text(json.dumps(seen))
"""

SERVICE_ENVIRONMENT = {
    "LATCHKEY_DATABASE_URL": "postgresql://latchkey:secret@db/latchkey",
    "LATCHKEY_AUTH_SECRET": "not-for-a-subprocess-of-any-kind",
    "OPENAI_API_KEY": "sk-of-another-service",
    "ANTHROPIC_AUTH_TOKEN": "another-way-in",
    "NODE_OPTIONS": "--require=/tmp/evil.js",
}


def read_files(*paths: Path) -> list[bytes]:
    return [path.read_bytes() for path in paths if path.is_file()]


async def test_environment_has_only_allowed_variables(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in (SERVICE_ENVIRONMENT | {"PATH": "/usr/bin:/bin", "LANG": "C.UTF-8"}).items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("NO_PROXY", "intranet.example")
    for name in ("TZ", "HTTPS_PROXY", "SSL_CERT_FILE", "SSL_CERT_DIR", "NODE_EXTRA_CA_CERTS"):
        monkeypatch.delenv(name, raising=False)
    record = tmp_path / "record.json"
    async with claude_harness(folder, path=fake_cli(tmp_path, RECORDER % str(record))) as harness:
        outcome = await harness.run_turn(agent_run=harness.agent_run("A secret of mine."))
    seen = json.loads(record.read_text())
    environment = seen["environment"]

    assert isinstance(outcome.failure, ModelUnavailable)  # it ended without output
    assert environment.pop("LATCHKEY_CONTEXT_TOKEN") == harness.secret.text
    assert environment.pop("ANTHROPIC_API_KEY") == API_KEY
    assert environment.pop("ANTHROPIC_BASE_URL") == harness.model.base_url.removesuffix("/v1")
    assert {Path(environment.pop(name)).parent.parent.parent for name in ("HOME", "TMPDIR")} == {folder}
    assert (environment.pop("PATH"), environment.pop("LANG")) == ("/usr/bin:/bin", "C.UTF-8")
    assert environment.pop("NO_PROXY") == "intranet.example,127.0.0.1"
    environment.pop("LC_CTYPE", None)  # set by Python in the fake CLI
    timeouts = {environment.pop(name) for name in ("MCP_TOOL_TIMEOUT", "CLAUDE_CODE_MCP_TOOL_IDLE_TIMEOUT")}
    assert timeouts == {"3600000"}
    switches = ("CLAUDE_CODE_", "DISABLE_", "ENABLE_TOOL_SEARCH")
    assert [name for name in environment if not name.startswith(switches)] == []
    assert set(environment.values()) == {"1", "false"}


async def test_arguments_and_files_have_no_secret_and_files_are_private(folder: Path, tmp_path: Path) -> None:
    record = tmp_path / "record.json"
    async with claude_harness(folder, path=fake_cli(tmp_path, RECORDER % str(record))) as harness:
        await harness.run_turn(agent_run=harness.agent_run("A secret of mine."))
    seen = json.loads(record.read_text())

    written = json.dumps([seen["arguments"], seen["files"]])
    assert not re.search(r"lk_[\w-]{43}", written)
    assert API_KEY not in written
    assert "A secret of mine." not in written
    assert set(seen["folders"]) == {"0o700"}
    assert {mode for mode, _ in seen["files"].values()} == {"0o600"}
    assert seen["files"]["system-prompt.txt"][1] == "You keep notes."
    assert json.loads(seen["files"]["mcp.json"][1])["mcpServers"]["latchkey"]["headers"] == {
        "Authorization": "Bearer ${LATCHKEY_CONTEXT_TOKEN}"
    }
    assert seen["work"] == []
    assert seen["group_of_its_own"]


async def test_files_written_by_the_cli_have_no_secret(harness: ClaudeHarness) -> None:
    """The files are read while the CLI runs."""
    harness.model.script.append(says("One, ", "two.").held(Event()))
    turn = harness.agent.run(harness.agent_run())
    assert await anext(turn) == TextDelta("One, ")

    (process,) = harness.processes
    texts = read_files(*harness.folder.rglob("*"), Path(f"/proc/{process}/cmdline"))
    await turn.aclose()

    assert len(texts) > 3
    for text in texts:
        assert harness.secret.text.encode() not in text
        assert API_KEY.encode() not in text


async def test_tools_are_called_only_with_the_token_of_the_turn(harness: ClaudeHarness) -> None:
    await harness.run_turn(says("Hello."))

    assert harness.endpoint.authorizations == {f"Bearer {harness.secret.text}"}
