"""Turns that wait for the user, many of them or beside other turns, and approved calls that take too long."""

from asyncio import Event
from datetime import timedelta

import pytest
from msgspec.structs import replace

from latchkey.application.access import Permission, tool
from latchkey.application.dispatcher import Dispatcher
from latchkey.application.turns import approvals
from latchkey.application.turns.approvals import BoundTool, find_decision_event
from latchkey.application.turns.executor import TurnLimits
from latchkey.application.turns.expire import with_expiry
from latchkey.application.turns.read import get_turn
from latchkey.application.turns.runner import TurnRunner
from latchkey.domain.approval import NewDecision
from latchkey.domain.credentials import TASKS_WRITE
from latchkey.domain.errors import Exhausted, Unavailable
from latchkey.domain.ports import UnitOfWork, UnitsOfWork
from latchkey.domain.quota import Quota
from latchkey.domain.task import Task
from latchkey.domain.turn import TurnStatus
from latchkey.infrastructure.database.event_bus import LocalEventBus
from tests.builders import LIMITS
from tests.contract.database.running_turn import RunningTurn
from tests.contract.database.test_approvals import ASKING, PAST, AskingTurn, approvals_of
from tests.contract.database.test_turn_attempts import RecordingAgent
from tests.turns import profiles_of


@pytest.fixture
async def turn(running_turn: RunningTurn) -> AskingTurn:
    asking = AskingTurn(running_turn.dispatchers, running_turn.owner)
    await asking.start()
    return asking


async def status_of(turn: AskingTurn) -> TurnStatus:
    """The status as stored, also while the turn is to be continued."""
    async with turn.dispatchers[0].unit_of_work(turn.owner, Permission(None, "read"), "get_turn") as uow:
        return (await uow.turns.get(turn.id)).status


async def test_request_that_meets_an_expired_turn_continues_no_other_waiting_turn(turn: AskingTurn) -> None:
    """A user can have any number of waiting turns, which the limit of running turns does not count."""
    turn.ttl = PAST
    others = []
    for _ in range(5):
        await turn.ask()
        await turn.wait()
        others.append(turn.started)
        await turn.start()
    turn.started = others.pop(0)
    agent = RecordingAgent()
    limits = TurnLimits(replace(LIMITS, attempts=3), timedelta(minutes=1), 12)
    runner = TurnRunner(turn.dispatchers[0], LocalEventBus(), profiles_of(agent=agent), limits)

    await with_expiry(turn.dispatchers[0], turn.owner, get_turn, turn.id)
    await runner.drain()

    assert [run.turn_id for run in agent.runs] == [turn.id]
    assert await status_of(turn) == "completed"
    for turn.started in others:
        assert await status_of(turn) == "waiting"


async def test_waiting_turn_rests_while_an_earlier_release_runs_another_turn_of_its_conversation(
    turn: AskingTurn,
) -> None:
    await turn.ask()
    await turn.wait()
    async with turn.dispatchers[0].unit_of_work(turn.owner, Permission(None, "write"), "add_turn") as uow:
        lease_until = uow.now + timedelta(minutes=1)
        await uow.turns.add(replace(turn.started.turn, id=uow.new_id(), lease_until=lease_until))
        await uow.commit()
    await turn.decide("decline")
    limits = TurnLimits(replace(LIMITS, attempts=3), timedelta(minutes=1), 12)
    TurnRunner(turn.dispatchers[0], LocalEventBus(), profiles_of(agent=RecordingAgent()), limits)

    with pytest.raises(Unavailable):
        await with_expiry(turn.dispatchers[0], turn.owner, get_turn, turn.id)
    assert await status_of(turn) == "waiting"


async def test_timeout_of_an_approved_call_releases_the_user_and_leaves_the_question_open(
    turn: AskingTurn, monkeypatch: pytest.MonkeyPatch
) -> None:
    @tool(TASKS_WRITE, title="Hang")
    async def hang(_: UnitOfWork) -> Task:
        await Event().wait()
        raise AssertionError

    monkeypatch.setattr(approvals, "CALL_LIMIT_S", 0.2)
    await turn.ask()
    await turn.wait()
    (question,) = await turn.questions()
    deciding = approvals_of(turn.dispatchers[0], lambda *_: BoundTool(hang, []))

    with pytest.raises(Unavailable, match="took too long"):
        await deciding.decide(turn.owner, turn.id, question, NewDecision("approve"), profiles_of())

    assert await turn.questions() == [question]
    assert (await turn.event_names())[-1] == "turn.waiting"
    assert not (await turn.decide("approve")).is_error


async def test_event_of_a_decision_is_found_in_a_long_log(turn: AskingTurn, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(approvals, "_PAGE_EVENTS", 2)
    await turn.ask()
    await turn.wait()
    decided = await turn.decide("decline")
    assert await turn.resume()

    seq = await turn.dispatchers[0].call(turn.owner, find_decision_event, turn.id, decided.id)

    assert (await turn.event_names())[seq - 1] == "approval.decided"


async def test_approval_beyond_the_storage_quota_leaves_the_question_open(turn: AskingTurn, units: UnitsOfWork) -> None:
    """The user deletes something and approves again: an approval is not used up by a call that was not made."""
    await turn.ask()
    await turn.wait()
    (question,) = await turn.questions()
    deciding = approvals_of(Dispatcher(units, lambda _call: None, Quota(stored_bytes=1)))

    with pytest.raises(Exhausted):
        await deciding.decide(turn.owner, turn.id, question, NewDecision("approve"), ASKING)

    assert await turn.questions() == [question]
    assert not (await turn.decide("approve")).is_error
    assert await turn.task_titles() == ["Milk"]
