"""Random kills while people talk: the short storm. `python -m tests.chaos` is the long one."""

import pytest

from tests.chaos.clockwork import Clockwork
from tests.chaos.cluster import Cluster
from tests.chaos.storm import Storm

pytestmark = pytest.mark.asyncio(loop_scope="module")

SEED = 20
KILLS = 6


async def test_after_random_kills_nothing_is_lost_doubled_or_stuck(cluster: Cluster, model: Clockwork) -> None:
    """By what the clients remember of all that they were told."""
    figures = await Storm(cluster, model, SEED).rage(KILLS)

    assert figures.anomalies == [], str(figures)
    assert figures.kills.total() >= KILLS
    assert figures.outcomes["completed"] > 0
    assert figures.outcomes["interrupted"] > 0
