"""Random kills while clients chat. This is the short run; `python -m tests.chaos` is the long one."""

import pytest

from tests.chaos.cluster import Cluster
from tests.chaos.fault_injection import FaultInjection
from tests.chaos.scripted_model import ScriptedModel

pytestmark = pytest.mark.asyncio(loop_scope="module")

SEED, RESTART_SEED = 20, 21
"""They differ, because the names of the users have them."""
KILLS = 6


async def test_rolling_restart_under_load_interrupts_no_turn(postgresql_cluster: Cluster, model: ScriptedModel) -> None:
    """Turns that do not end within the drain are handed over: `test_crash_points` has one that always is."""
    report = await FaultInjection(postgresql_cluster, model, RESTART_SEED).run_restarts(1)

    assert report.anomalies == [], str(report)
    assert report.outcomes["completed"] > 0
    assert report.outcomes["interrupted"] == 0


async def test_random_kills_cause_no_lost_duplicated_or_stuck_data(cluster: Cluster, model: ScriptedModel) -> None:
    report = await FaultInjection(cluster, model, SEED).run(KILLS)

    assert report.anomalies == [], str(report)
    assert report.kills.total() >= KILLS
    assert report.outcomes["completed"] > 0
    assert report.resumed.total() > 0
