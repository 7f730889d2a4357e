"""The official MCP conformance suite finds no unexpected failure."""

import asyncio
from pathlib import Path

import pytest

from tests.interop.bearer_proxy import add_bearer
from tests.interop.check_counter import Checks
from tests.interop.client_matrix import CURRENT, OLDER
from tests.interop.conformance_suite import baseline_of, conformance, expected_failures
from tests.interop.service import InteropService, interop_service

INPUT_REQUESTS = [
    "input-required-result-missing-input-response:sep-2322-missing-response-rerequests",
    "input-required-result-multi-round:sep-2322-multi-round-r1",
    "input-required-result-request-state:sep-2322-request-state-incomplete",
    "input-required-result-result-type:sep-2322-result-type-included",
    "input-required-result-tampered-state:sep-2322-reject-tampered-state",
    "input-required-result-validate-input:sep-2322-validate-input-responses",
]
"""The checks that a tool passes which asks for approval; the others want forms and tools with other fields."""


@pytest.mark.parametrize("version", [OLDER, CURRENT])
async def test_conformance_suite_has_only_expected_failures(
    version: str, service: InteropService, checks: Checks, tmp_path: Path
) -> None:
    """Every expected failure must occur, so that an outdated expectation is found."""
    baseline = baseline_of(version)
    user = await asyncio.to_thread(service.new_user)
    await asyncio.to_thread(user.create_resources)

    async with add_bearer(f"{service.replica.url}/mcp", user.token) as url:
        run = await conformance(url, version, baseline, tmp_path)

    assert run.code == 0, run.output
    failed = run.checks["FAILURE"] + run.checks["WARNING"]
    assert sorted(failed) == sorted(expected_failures(baseline))
    checks.passed(f"conformance suite, {version}", len(run.checks["SUCCESS"]))


async def test_conformance_suite_accepts_input_requests_of_tools_that_ask(checks: Checks, tmp_path: Path) -> None:
    """Of an app whose tools have the names that the suite calls."""
    home = tmp_path / "home"
    home.mkdir()
    with interop_service(home, LATCHKEY_APP="tests.apps.conformance_tools:app") as service:
        user = await asyncio.to_thread(service.new_user)
        async with add_bearer(f"{service.replica.url}/mcp", user.token) as url:
            run = await conformance(url, CURRENT, baseline_of(CURRENT), tmp_path / "results")

    assert [check for check in INPUT_REQUESTS if check not in run.checks["SUCCESS"]] == [], run.output
    checks.passed(f"conformance suite, {CURRENT}", len(INPUT_REQUESTS))
