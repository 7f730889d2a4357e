"""The official MCP conformance suite finds no unexpected failure."""

import asyncio
from pathlib import Path

import pytest

from tests.interop.bearer_proxy import add_bearer
from tests.interop.check_counter import Checks
from tests.interop.client_matrix import CURRENT, OLDER
from tests.interop.conformance_suite import baseline_of, conformance, expected_failures
from tests.interop.service import InteropService


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
