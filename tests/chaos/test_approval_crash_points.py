"""`kill -9` at every crash point of an approval: the question stays, and the call is made once, if it is approved."""

import asyncio
from dataclasses import replace
from signal import SIGKILL

import pytest

from tests.chaos.client_driver import ClientDriver
from tests.chaos.cluster import Cluster
from tests.chaos.crash_points import WORDS, ApprovalPoint, HeldTurn, hold_turns
from tests.chaos.history import Decides
from tests.chaos.scripted_model import ScriptedModel, message_text
from tests.chaos.verify_consistency import ConsistencyVerifier
from tests.polling import wait_until

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest.mark.parametrize("point", list(ApprovalPoint), ids=lambda point: point.name.lower())
async def test_turn_killed_at_approval_point_goes_on(
    sqlite_cluster: Cluster, model: ScriptedModel, point: ApprovalPoint
) -> None:
    """Its client repeats the decision, or makes it when it is asked again.

    On a busy machine the call may have been announced before the question was stored. Then the model learns that
    nothing was done, and does not ask again.
    """
    turn = HeldTurn.at(point, "asked", is_streamed=point is not ApprovalPoint.ASKED)
    async with hold_turns([turn], sqlite_cluster, model) as tasks:
        await sqlite_cluster.terminate(0, SIGKILL)
    await sqlite_cluster.start(0)
    await asyncio.gather(*tasks)

    assert turn.message.outcome == "completed"
    was_dropped = point is ApprovalPoint.ASKING and "no-result" in _codes(turn)
    assert await _titles(sqlite_cluster, model, turn) == ([] if was_dropped else [f"{turn.user}.0.asked"])


@pytest.mark.parametrize("decides", ["approve", "decline", "both", "leave"])
async def test_waiting_turn_outlives_its_process(
    sqlite_cluster: Cluster, model: ScriptedModel, decides: Decides
) -> None:
    """Of opposite decisions at once, one is made. A further message cancels a turn that waits."""
    turn = HeldTurn.at(ApprovalPoint.RESUMED, f"waiting_{decides}", is_streamed=True)
    turn.message.decides = "leave"
    token = sqlite_cluster.token(turn.user)
    async with ClientDriver(sqlite_cluster, turn.user, token, turn.history) as client:
        await client.send(turn.message)
        assert turn.message.is_waiting
        await sqlite_cluster.terminate(0, SIGKILL)
        await sqlite_cluster.start(0)
        message = replace(turn.message, outcome=None, decides=decides)
        turn.history.sent.clear()
        await client.send(message)

    assert message.outcome == ("left" if decides == "leave" else "completed")
    titles = await _titles(sqlite_cluster, model, turn)
    made = {"approve"} & {decided["decision"] for decided in turn.history.decided}
    assert titles == [f"{turn.user}.0.asked" for _ in made]


async def test_approved_external_call_of_killed_process_is_not_made_again(
    sqlite_cluster: Cluster, model: ScriptedModel
) -> None:
    """Its turn goes on after the lease, and the model learns that the call has no recorded result."""
    turn = HeldTurn.at(ApprovalPoint.RESUMED, "delivers", is_streamed=True)
    turn.message.body["message"] = message_text(turn.user, 0, WORDS, asks=2)
    model.holds_deliveries = True

    async def is_delivering() -> bool:
        return model.deliveries[f"{turn.user}.1.asked"] == 1

    async with ClientDriver(sqlite_cluster, turn.user, sqlite_cluster.token(turn.user), turn.history) as client:
        sending = asyncio.create_task(client.send(turn.message))
        await wait_until(is_delivering)
        await sqlite_cluster.terminate(0, SIGKILL)
        model.holds_deliveries = False
        await sqlite_cluster.start(0)
        await sending

    assert turn.message.outcome == "completed"
    assert await _titles(sqlite_cluster, model, turn) == [f"{turn.user}.0.asked"]
    assert await is_delivering()
    assert _codes(turn) == ["ok", "no-result"]


def _codes(turn: HeldTurn) -> list[str]:
    """The codes of the results that the client has received, `ok` without an error."""
    events = turn.history.events[str(turn.message.turn_id)].values()
    results = [event.data for event in events if event.name == "tool_call.completed"]
    return [result["result"]["code"] if result["is_error"] else "ok" for result in results]


async def _titles(cluster: Cluster, model: ScriptedModel, turn: HeldTurn) -> list[str]:
    """The titles of what the turn has stored. Nothing is inconsistent."""
    verifier = ConsistencyVerifier(cluster, model, turn.user, turn.history)
    snapshot = await verifier.final_snapshot()

    assert verifier.anomalies(snapshot) == []
    assert model.faults == []
    return [title for title in snapshot.titles.elements() if title.startswith(f"{turn.user}.")]
