"""The official conformance suite: a run of it over a server, and what it is expected to find there."""

import asyncio
import json
import re
from asyncio.subprocess import PIPE, STDOUT
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path

from tests.node import environment, installed, node

FOLDER = Path(__file__).parent
_PROGRAM = "node_modules/@modelcontextprotocol/conformance/dist/index.js"
_FOLDER_NAME = re.compile(r"server-(?P<scenario>.+)-\d{4}-\d\d-\d\dT[\d-]+Z")
_LINE = re.compile(r"  - (?P<check>\S+:\S+)  # \S.*")


@dataclass(frozen=True)
class Run:
    """How it ended, what it said, and each check as `scenario:check` under the status it got."""

    code: int | None
    said: str
    checks: dict[str, list[str]]


def baseline_of(version: str) -> Path:
    return FOLDER / f"conformance-{version}.yml"


def expected_failures(baseline: Path) -> list[str]:
    """What is missing by intent, as `scenario:check`. Every line has its reason, or it is refused."""
    found = []
    for line in baseline.read_text().splitlines():
        if line and not line.startswith("#") and line != "server:":
            entry = _LINE.fullmatch(line)
            assert entry, f"{baseline.name}: expected `  - scenario:check  # reason`, found {line!r}"
            found.append(entry["check"])
    return found


async def conformance(url: str, version: str, baseline: Path, results: Path) -> Run:
    """Every scenario of that version, fixtures or not."""
    await asyncio.to_thread(installed, FOLDER)
    process = await asyncio.create_subprocess_exec(
        *(node(), FOLDER / _PROGRAM, "server", "--url", url, "--suite", "all", "--spec-version", version),
        *("--expected-failures", baseline, "--output-dir", results),
        stdout=PIPE,
        stderr=STDOUT,
        env=environment(),
    )
    said, _ = await process.communicate()
    scenarios = await asyncio.to_thread(_read, results)
    return Run(process.returncode, said.decode(), _by_status(scenarios))


def _read(results: Path) -> dict[str, list[dict[str, str]]]:
    """The checks of each scenario."""
    read = {}
    for file in results.glob("*/checks.json"):
        name = _FOLDER_NAME.fullmatch(file.parent.name)
        assert name, file
        read[name["scenario"]] = json.loads(file.read_text())
    return read


def _by_status(scenarios: dict[str, list[dict[str, str]]]) -> dict[str, list[str]]:
    found = defaultdict(list)
    for scenario, checks in scenarios.items():
        for check in checks:
            found[check["status"]].append(f"{scenario}:{check['id']}")
    return dict(found)
