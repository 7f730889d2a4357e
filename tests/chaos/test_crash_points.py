"""`kill -9` at every crash point of a turn: it goes on, acknowledged data is stored, nothing is partially written."""

import asyncio
import time
from signal import SIGCONT, SIGKILL, SIGSTOP, SIGTERM, Signals

import pytest

from tests.chaos.client_driver import RECOVERY_SLACK_S
from tests.chaos.cluster import Cluster, SlowStatement, Statement
from tests.chaos.crash_points import SLOW_S, CrashPoint, HeldTurn, delays, hold_turns, wait_until_slow
from tests.chaos.scripted_model import Hold, ScriptedModel
from tests.chaos.snapshot import Snapshot, SnapshotReader, TemporarilyUnavailable
from tests.chaos.verify_consistency import ConsistencyVerifier
from tests.polling import wait_until

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest.mark.parametrize("point", list(CrashPoint), ids=lambda point: point.name.lower())
async def test_turn_killed_at_crash_point_goes_on(
    sqlite_cluster: Cluster, model: ScriptedModel, point: CrashPoint
) -> None:
    """Its client retries with the same idempotency key. A turn that was not yet started is started by the retry."""
    turn = HeldTurn.at(point, "killed", is_streamed=point is CrashPoint.FIRST_DELTA)
    async with hold_turns([turn], sqlite_cluster, model) as tasks:
        await sqlite_cluster.terminate(0, SIGKILL)
    await sqlite_cluster.start(0)
    await asyncio.gather(*tasks)

    await _verify(sqlite_cluster, model, turn, point, attempt=1 + point.is_started)


@pytest.mark.parametrize("is_committed", [False, True], ids=["in resume transaction", "before first request"])
async def test_turn_killed_again_while_it_is_resumed_goes_on(
    sqlite_cluster: Cluster, model: ScriptedModel, *, is_committed: bool
) -> None:
    turn = HeldTurn.at(CrashPoint.AFTER_TOOL_COMMIT, f"again{is_committed}".lower(), is_streamed=True)
    async with hold_turns([turn], sqlite_cluster, model) as tasks:
        await sqlite_cluster.terminate(0, SIGKILL)
    hold, slow = Hold(turn.user, request=2), SlowStatement(Statement.RESUME_TURN, SLOW_S, turn.user)
    async with delays(sqlite_cluster, model, [] if is_committed else [slow], [hold]):
        await sqlite_cluster.start(0)
        await (hold.reached.wait() if is_committed else wait_until_slow(sqlite_cluster))
        await sqlite_cluster.terminate(0, SIGKILL)
    await sqlite_cluster.start(0)
    await asyncio.gather(*tasks)

    await _verify(sqlite_cluster, model, turn, CrashPoint.AFTER_TOOL_COMMIT, attempt=2 + is_committed)


@pytest.mark.parametrize("is_killed", [False, True], ids=["released", "killed in release transaction"])
async def test_turn_of_stopping_replica_goes_on(
    sqlite_cluster: Cluster, model: ScriptedModel, *, is_killed: bool
) -> None:
    """A process that stops hands its turn over. If it is killed before that is committed, the lease expires."""
    turn = HeldTurn.at(CrashPoint.AFTER_TOOL_COMMIT, f"stopped{is_killed}".lower(), is_streamed=True)
    async with hold_turns([turn], sqlite_cluster, model) as tasks:
        if is_killed:
            await sqlite_cluster.slow_down(SlowStatement(Statement.RELEASE_TURN, SLOW_S, turn.user))
            sqlite_cluster.send_signal(0, SIGTERM)
            await wait_until_slow(sqlite_cluster)
        await sqlite_cluster.terminate(0, SIGKILL if is_killed else SIGTERM)
    await sqlite_cluster.start(0)
    await asyncio.gather(*tasks)

    await _verify(sqlite_cluster, model, turn, CrashPoint.AFTER_TOOL_COMMIT, attempt=2)
    resumed = [event.data for event in turn.received_events if event.name == "turn.resumed"]
    assert [data["reason"] for data in resumed] == ["recovery" if is_killed else "handover"]


@pytest.mark.parametrize("signal", [SIGKILL, SIGSTOP], ids=lambda signal: signal.name)
async def test_turns_of_lost_replica_go_on_in_other_replica(
    postgresql_cluster: Cluster, model: ScriptedModel, signal: Signals
) -> None:
    """The lost replica has a turn at every crash point. If it was only stopped, its later writes are refused."""
    turns = {point: HeldTurn.at(point, signal.name, is_streamed=True) for point in CrashPoint}
    async with hold_turns([*turns.values()], postgresql_cluster, model) as tasks:
        await _stop(postgresql_cluster, signal)
    stopped_at = time.monotonic()
    for point, turn in turns.items():
        if point.is_started:
            await _wait_for_status(postgresql_cluster, 1, turn, "completed")
    seconds = time.monotonic() - stopped_at
    await _recover(postgresql_cluster, signal)
    await asyncio.gather(*tasks)

    assert seconds < postgresql_cluster.lease_s + 10 + RECOVERY_SLACK_S
    for point, turn in turns.items():
        await _verify(postgresql_cluster, model, turn, point, attempt=1 + point.is_started)


async def test_turns_of_lost_replica_are_interrupted_after_their_last_attempt(
    postgresql_cluster: Cluster, model: ScriptedModel
) -> None:
    """With one attempt, no turn is continued."""
    await postgresql_cluster.terminate(1, SIGTERM)
    await postgresql_cluster.start(1, attempts=1)
    turns = {point: HeldTurn.at(point, "once", is_streamed=True) for point in CrashPoint}
    async with hold_turns([*turns.values()], postgresql_cluster, model) as tasks:
        await postgresql_cluster.terminate(0, SIGKILL)
    for point, turn in turns.items():
        turn.history.attempts = 1
        if point.is_started:
            await _wait_for_status(postgresql_cluster, 1, turn, "interrupted")
    await postgresql_cluster.start(0)
    await asyncio.gather(*tasks)

    for point, turn in turns.items():
        status = "interrupted" if point.is_started else "completed"
        await _verify(postgresql_cluster, model, turn, point, status, attempt=1)


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


async def _wait_for_status(cluster: Cluster, replica: int, turn: HeldTurn, status: str) -> None:
    """Wait until that replica shows the turn with this status, and record it."""
    url = cluster.urls[replica]
    assert url is not None
    async with SnapshotReader(url, turn.user, cluster.token(turn.user)) as reader:

        async def has_status() -> bool:
            try:
                turns = [
                    turn
                    for conversation in await reader.items("conversations")
                    for turn in await reader.items(f"conversations/{conversation['id']}/turns")
                ]
            except TemporarilyUnavailable:  # PostgreSQL still waits for transactions of the stopped replica to time out
                return False
            return [turn["status"] for turn in turns] == [status]

        await wait_until(has_status)
        (await reader.snapshot()).add_to(turn.history)


async def _verify(
    cluster: Cluster,
    model: ScriptedModel,
    turn: HeldTurn,
    point: CrashPoint,
    status: str = "completed",
    *,
    attempt: int,
) -> None:
    """The turn has this status. It has its effect once, if that was committed or an attempt could try it again."""
    snapshot, own_titles = await _final_snapshot(cluster, model, turn)
    assert turn.message.outcome == status
    assert own_titles == [f"{turn.user}.0"] * (point.has_effect or (point.is_retried and status == "completed"))
    assert turn.message.turn_id is not None
    assert snapshot.turns[turn.message.turn_id]["attempt"] >= attempt


async def _final_snapshot(cluster: Cluster, model: ScriptedModel, turn: HeldTurn) -> tuple[Snapshot, list[str]]:
    """The data of the user, without anomalies, and the titles of what the turn has stored."""
    verifier = ConsistencyVerifier(cluster, model, turn.user, turn.history)
    snapshot = await verifier.final_snapshot()

    assert verifier.anomalies(snapshot) == []
    assert model.faults == []
    return snapshot, [title for title in snapshot.titles.elements() if title.startswith(f"{turn.user}.")]
