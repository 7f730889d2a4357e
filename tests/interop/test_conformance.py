"""The official conformance suite finds nothing wrong with what the service offers."""

import asyncio
from pathlib import Path

import pytest

from tests.interop.bearer_proxy import adding_bearer
from tests.interop.place import Place
from tests.interop.suite import baseline_of, conformance, expected_failures
from tests.interop.tally import Checks
from tests.interop.ways import CURRENT, OLDER


@pytest.mark.parametrize("version", [OLDER, CURRENT])
async def test_every_check_passes_but_those_of_what_is_not_offered(
    version: str, place: Place, checks: Checks, tmp_path: Path
) -> None:
    """What is expected to fail does fail, check by check, so that nothing hides behind an expectation."""
    baseline = baseline_of(version)
    person = await asyncio.to_thread(place.person)
    await asyncio.to_thread(person.shelve)

    async with adding_bearer(f"{place.replica.url}/mcp", person.token) as url:
        run = await conformance(url, version, baseline, tmp_path)

    assert run.code == 0, run.said
    failed = run.checks["FAILURE"] + run.checks["WARNING"]
    assert sorted(failed) == sorted(expected_failures(baseline))
    checks.passed(f"conformance suite, {version}", len(run.checks["SUCCESS"]))
