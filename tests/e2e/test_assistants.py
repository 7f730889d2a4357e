"""The file of assistants: a faulty one stops the start, and SIGHUP lets every process read it again."""

import os
import signal
from pathlib import Path

import pytest

from tests.e2e.service_process import Environment, Replica, issue_token, migrate_database, run_command, running_service
from tests.polling import wait_until_sync

WORKERS = 2
FAULTY = "[assistant.shop]\n\ncolour = 'red'\n"
CURE = "there is no such key"
APP = """
from latchkey import App, Assistant

app = App(
    name="shop",
    assistants=[
        Assistant(name="shop",
                  tools=("add_tusk",)),
    ],
)
"""


@pytest.fixture
def file(home: Path) -> Path:
    return home / "assistants.toml"


@pytest.fixture
def with_file(configured: Environment, file: Path) -> Environment:
    return {**configured, "LATCHKEY_ASSISTANTS": file.name}


@pytest.mark.parametrize("command", ["serve", "doctor"])
def test_faulty_file_is_refused_with_line_and_cure(
    home: Path, file: Path, with_file: Environment, command: str
) -> None:
    file.write_text(FAULTY)
    refused = run_command(command, home=home, environment=with_file)
    output = refused.stderr if command == "serve" else refused.stdout

    assert refused.exit_code == 1
    assert f"assistants.toml:3: assistant.shop.colour: {CURE}" in output
    assert "Traceback" not in refused.stderr


def test_faulty_assistant_of_an_app_is_refused_with_file_line_and_cure(home: Path, configured: Environment) -> None:
    (home / "shop.py").write_text(APP)
    refused = run_command("serve", home=home, environment={**configured, "LATCHKEY_APP": "shop:app"})

    assert refused.exit_code == 1
    assert "  shop.py:8: assistant.shop.tools: there is no tool 'add_tusk'; did you mean add_task?" in refused.stderr
    assert "Traceback" not in refused.stderr


def names(replica: Replica, token: str) -> list[str]:
    items = replica.request("GET", "/api/me/assistants", token).json()["items"]
    return [item["name"] for item in items]


def reload(replica: Replica, event: str, processes: int) -> None:
    """Send SIGHUP to the service, and wait until all its processes have logged the event."""
    before = replica.log_text.count(event)
    assert replica.process.pid
    os.kill(replica.process.pid, signal.SIGHUP)
    wait_until_sync(lambda: replica.log_text.count(event) == before + processes)


def test_all_processes_read_the_file_again_at_sighup(
    home: Path, file: Path, with_file: Environment, database_url: str
) -> None:
    processes = 1 if database_url.startswith("sqlite") else WORKERS
    file.write_text("[assistant.shop]\n")
    migrate_database(home, with_file)
    token = issue_token("ada", home, with_file)
    arguments = ["--workers", str(processes)]
    with running_service(*arguments, home=home, environment=with_file) as replica:
        wait_until_sync(lambda: replica.log_text.count("assistants_loaded") == processes)
        assert names(replica, token) == ["default", "shop"]

        file.write_text(FAULTY)
        reload(replica, "assistants_reload_failed", processes)
        assert all(names(replica, token) == ["default", "shop"] for _ in range(8))
        assert CURE in replica.log_text

        file.write_text("[assistant.shop]\n[assistant.help]\n")
        reload(replica, "assistants_reloaded", processes)
        assert all(names(replica, token) == ["default", "help", "shop"] for _ in range(8))
