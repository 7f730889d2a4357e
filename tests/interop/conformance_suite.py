"""Runs the official MCP conformance suite, and reads the baseline of expected failures."""

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
    """Exit code, output, and the checks as `scenario:check` by status."""

    code: int | None
    output: str
    checks: dict[str, list[str]]


def baseline_of(version: str) -> Path:
    return FOLDER / f"conformance-{version}.yml"


def expected_failures(baseline: Path) -> list[str]:
    """The expected failures, as `scenario:check`. Raises `AssertionError` for a line without a reason."""
    items = []
    for line in baseline.read_text().splitlines():
        if line and not line.startswith("#") and line != "server:":
            entry = _LINE.fullmatch(line)
            assert entry, f"{baseline.name}: expected `  - scenario:check  # reason`, found {line!r}"
            items.append(entry["check"])
    return items


async def conformance(url: str, version: str, baseline: Path, results: Path) -> Run:
    """Run every scenario of that protocol version."""
    await asyncio.to_thread(installed, FOLDER)
    process = await asyncio.create_subprocess_exec(
        *(node(), FOLDER / _PROGRAM, "server", "--url", url, "--suite", "all", "--spec-version", version),
        *("--expected-failures", baseline, "--output-dir", results),
        stdout=PIPE,
        stderr=STDOUT,
        env=environment(),
    )
    output, _ = await process.communicate()
    scenarios = await asyncio.to_thread(_read, results)
    return Run(process.returncode, output.decode(), _by_status(scenarios))


def _read(results: Path) -> dict[str, list[dict[str, str]]]:
    """The checks by scenario."""
    read = {}
    for file in results.glob("*/checks.json"):
        name = _FOLDER_NAME.fullmatch(file.parent.name)
        assert name, file
        read[name["scenario"]] = json.loads(file.read_text())
    return read


def _by_status(scenarios: dict[str, list[dict[str, str]]]) -> dict[str, list[str]]:
    items = defaultdict(list)
    for scenario, checks in scenarios.items():
        for check in checks:
            items[check["status"]].append(f"{scenario}:{check['id']}")
    return dict(items)
