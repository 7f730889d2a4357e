"""Runs `tests.costs.measure` in a separate process."""

import os
import subprocess
import sys
from pathlib import Path

import msgspec

from bench.environment import ROOT
from tests.costs.measure import Cost


def measure_in_subprocess(database_url: str, model_url: str, log: Path) -> dict[str, Cost]:
    """The cost of each operation on that migrated database. The log gets the standard error of the process."""
    command = [sys.executable, "-m", "tests.costs.measure", database_url, model_url]
    environment = {"PATH": os.environ["PATH"], "PYTHONHASHSEED": "0"}
    with log.open("wb") as log_file:
        process = subprocess.run(
            command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=log_file, check=False
        )
    if process.returncode:
        raise RuntimeError(log.read_text()[-4000:])
    return msgspec.json.decode(process.stdout, type=dict[str, Cost])
