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
SEED = int(os.environ.get("FUZZ_SEED", "20261"))
COVERED_LINKS = 30
"""More links than these are followed, or the sequences of operations were too few."""
ATTEMPTS = 5
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


def run_schemathesis(
    replica: Replica, token: str, folder: Path, *arguments: str, seed: int = SEED
) -> tuple[str, dict[str, Any]]:
    """Run it and return its output and report."""
    report = folder / "report.json"
    command: list[str | Path] = [
        SCHEMATHESIS,
        "--config-file",
        HERE / "schemathesis.toml",
        "run",
        f"{replica.url}/schema/openapi.json",
    ]
    options = ["--continue-on-failure", "--no-color", "--seed", str(seed), *arguments]
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


def covered_links(output: str) -> int:
    covered = re.search(r"API Links: +(\d+) covered", output)
    assert covered, output
    return int(covered[1])


def test_schemathesis_finds_no_response_that_is_not_published(
    home: Path, configured: Environment, tmp_path: Path
) -> None:
    """Each operation alone and in sequences, with valid and invalid input.

    Schemathesis ends the sequences early, as a success, when a repeated sequence generates other data, as ids and
    times of responses can cause. Then they run again with other seeds, until enough links are covered.
    """
    token = issue_token("fuzzer", home, configured)
    with running_service(home=home, environment=configured) as replica:
        output, report = run_schemathesis(replica, token, tmp_path)
        sequences = [(output, report)]
        while covered_links(sequences[-1][0]) <= COVERED_LINKS and len(sequences) < ATTEMPTS:
            seed = SEED + len(sequences)
            sequences.append(run_schemathesis(replica, token, tmp_path, "--phases", "stateful", seed=seed))
        still_alive = replica.request("GET", "/health/ready").status_code

    for sequence_output, sequence_report in sequences:
        assert sequence_report["exit_code"] == 0, sequence_output
    assert report["operations"]["tested"] == report["operations"]["total"] > 25
    assert {phase: report["phases"][phase]["status"] for phase in ("coverage", "fuzzing", "stateful")} == {
        "coverage": "success",
        "fuzzing": "success",
        "stateful": "success",
    }
    assert report["test_cases"]["generated"] > 1000
    assert covered_links(sequences[-1][0]) > COVERED_LINKS, [covered_links(text) for text, _ in sequences]
    assert still_alive == 200
    assert '"level":"error"' not in replica.log_text
