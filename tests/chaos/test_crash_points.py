"""`kill -9` at every crash point of a turn: acknowledged data is stored, and nothing is partially written."""

import asyncio
import time
from signal import SIGCONT, SIGKILL, SIGSTOP, Signals

import pytest

from tests.chaos.client_driver import RECOVERY_SLACK_S
from tests.chaos.cluster import Cluster
from tests.chaos.crash_points import CrashPoint, HeldTurn, hold_turns
from tests.chaos.scripted_model import ScriptedModel
from tests.chaos.snapshot import SnapshotReader, TemporarilyUnavailable
from tests.chaos.verify_consistency import ConsistencyVerifier
from tests.polling import wait_until

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest.mark.parametrize("point", list(CrashPoint), ids=lambda point: point.name.lower())
async def test_turn_killed_at_crash_point_is_interrupted(
    sqlite_cluster: Cluster, model: ScriptedModel, point: CrashPoint
) -> None:
    """Its client retries with the same idempotency key. A turn that was not yet started is started by the retry."""
    turn = HeldTurn.at(point, "killed", is_streamed=point is CrashPoint.FIRST_DELTA)
    async with hold_turns([turn], sqlite_cluster, model) as tasks:
        await sqlite_cluster.terminate(0, SIGKILL)
    await sqlite_cluster.start(0)
    await _wait_until_interrupted(sqlite_cluster, 0, turn)
    await asyncio.gather(*tasks)

    await _verify(sqlite_cluster, model, turn)


@pytest.mark.parametrize("signal", [SIGKILL, SIGSTOP], ids=lambda signal: signal.name)
async def test_turns_of_lost_replica_are_interrupted_by_other_replica(
    postgresql_cluster: Cluster, model: ScriptedModel, signal: Signals
) -> None:
    """The lost replica has a turn at every crash point. If it was only stopped, its later writes are refused."""
    turns = [HeldTurn.at(point, signal.name, is_streamed=True) for point in CrashPoint]
    async with hold_turns(turns, postgresql_cluster, model) as tasks:
        await _stop(postgresql_cluster, signal)
    stopped_at = time.monotonic()
    for turn in turns:
        await _wait_until_interrupted(postgresql_cluster, 1, turn)
    seconds = time.monotonic() - stopped_at
    await _recover(postgresql_cluster, signal)
    await asyncio.gather(*tasks)

    assert seconds < postgresql_cluster.lease_s + 10 + RECOVERY_SLACK_S
    for turn in turns:
        await _verify(postgresql_cluster, model, turn)


async def _stop(cluster: Cluster, signal: Signals) -> None:
    if signal == SIGSTOP:
        cluster.send_signal(0, SIGSTOP)
    else:
        await cluster.terminate(0, signal)


async def _recover(cluster: Cluster, signal: Signals) -> None:
    if signal == SIGSTOP:
        cluster.send_signal(0, SIGCONT)
    else:
        await cluster.start(0)


async def _wait_until_interrupted(cluster: Cluster, replica: int, turn: HeldTurn) -> None:
    """Wait until that replica shows the turn as interrupted, and record it. A turn not started is skipped."""
    if not turn.point.is_started:
        return
    url = cluster.urls[replica]
    assert url is not None
    async with SnapshotReader(url, turn.user, cluster.token(turn.user)) as reader:

        async def is_interrupted() -> bool:
            try:
                turns = [
                    turn
                    for conversation in await reader.items("conversations")
                    for turn in await reader.items(f"conversations/{conversation['id']}/turns")
                ]
            except TemporarilyUnavailable:  # PostgreSQL still waits for transactions of the stopped replica to time out
                return False
            return [turn["status"] for turn in turns] == ["interrupted"]

        await wait_until(is_interrupted)
        (await reader.snapshot()).add_to(turn.history)


async def _verify(cluster: Cluster, model: ScriptedModel, turn: HeldTurn) -> None:
    """A started turn is interrupted and unchanged; a turn that was not started has completed since. No anomalies."""
    verifier = ConsistencyVerifier(cluster, model, turn.user, turn.history)
    snapshot = await verifier.final_snapshot()
    own_titles = [title for title in snapshot.titles.elements() if title.startswith(f"{turn.user}.")]
    point = turn.point

    assert verifier.anomalies(snapshot) == []
    assert model.faults == []
    assert turn.message.outcome == ("interrupted" if point.is_started else "completed")
    assert own_titles == [f"{turn.user}.0"] * (point.has_effect or not point.is_started)
