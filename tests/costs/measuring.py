"""The figures, measured in a process of its own."""

import os
import subprocess
import sys
from pathlib import Path

import msgspec

from bench.stage import ROOT
from tests.costs.figures import Cost


def measured(database_url: str, model_url: str, log: Path) -> dict[str, Cost]:
    """The costs of every operation on that migrated database; what the service says goes to the log."""
    command = [sys.executable, "-m", "tests.costs.figures", database_url, model_url]
    environment = {"PATH": os.environ["PATH"], "PYTHONHASHSEED": "0"}
    with log.open("wb") as said:
        done = subprocess.run(command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=said, check=False)
    if done.returncode:
        raise RuntimeError(log.read_text()[-4000:])
    return msgspec.json.decode(done.stdout, type=dict[str, Cost])
