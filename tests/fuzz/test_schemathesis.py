"""Schemathesis against the running program: responses to generated requests conform to the published schema.

`FUZZ_SECONDS` is the duration of a run on each database, and `FUZZ_SEED` the seed.
"""

import json
import os
import re
import subprocess
import sysconfig
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.service_process import BASE_SETTINGS, Environment, Replica, issue_token, running_service

HERE = Path(__file__).parent
SCHEMATHESIS = Path(sysconfig.get_path("scripts")) / "schemathesis"
SECONDS = os.environ.get("FUZZ_SECONDS")
SEED = os.environ.get("FUZZ_SEED", "20261")
UNBOUNDED = {"LATCHKEY_REQUESTS_PER_MINUTE": "10000000"}
"""The rate limit is off: 429 responses would hide errors."""


@pytest.fixture
def home(tmp_path: Path) -> Path:
    folder = tmp_path / "home"
    folder.mkdir()
    return folder


@pytest.fixture
def configured(database_url: str) -> Environment:
    return {**BASE_SETTINGS, **UNBOUNDED, "LATCHKEY_DATABASE_URL": database_url}


def run_schemathesis(replica: Replica, token: str, folder: Path) -> tuple[str, dict[str, Any]]:
    """Run it and return its output and report."""
    report = folder / "report.json"
    command: list[str | Path] = [
        SCHEMATHESIS,
        "--config-file",
        HERE / "schemathesis.toml",
        "run",
        f"{replica.url}/schema/openapi.json",
    ]
    options = ["--continue-on-failure", "--no-color", "--seed", SEED]
    longer = ["--max-time", SECONDS] if SECONDS else []
    done = subprocess.run(
        [*command, *options, *longer, "--report", "json", "--report-json-path", report],
        cwd=folder,
        env={"PATH": os.environ["PATH"], "PYTHONPATH": str(HERE.parents[1]), "TOKEN": token, "COLUMNS": "160"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert report.exists(), done.stdout + done.stderr
    return done.stdout, json.loads(report.read_text())


def test_schemathesis_finds_no_response_that_is_not_published(
    home: Path, configured: Environment, tmp_path: Path
) -> None:
    """Each operation alone and in sequences, with valid and invalid input."""
    token = issue_token("fuzzer", home, configured)
    with running_service(home=home, environment=configured) as replica:
        output, report = run_schemathesis(replica, token, tmp_path)
        still_alive = replica.request("GET", "/health/ready").status_code
    covered = re.search(r"API Links: +(\d+) covered", output)

    assert report["exit_code"] == 0, output
    assert report["operations"]["tested"] == report["operations"]["total"] > 25
    assert {phase: report["phases"][phase]["status"] for phase in ("coverage", "fuzzing", "stateful")} == {
        "coverage": "success",
        "fuzzing": "success",
        "stateful": "success",
    }
    assert report["test_cases"]["generated"] > 1000
    assert covered, output
    assert int(covered[1]) > 30, output
    assert still_alive == 200
    assert '"level":"error"' not in replica.log_text
