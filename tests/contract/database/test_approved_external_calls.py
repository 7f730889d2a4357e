"""An approved call outside a transaction: its turn waits for the result as long as the process lives that runs it."""

import asyncio
from datetime import timedelta
from typing import Any, Literal

import msgspec
import pytest
from msgspec import Struct
from msgspec.structs import replace

from latchkey.application import external_calls
from latchkey.application.access import Permission, tool
from latchkey.application.external_calls import ExternalCallExecutor, ExternalTool
from latchkey.application.tasks import add_task
from latchkey.application.tool_calls import ToolCallExecutor
from latchkey.application.turns.approvals import (
    Approvals,
    BoundTool,
    StoredDecision,
    list_approvals,
    renew_waiting_turn,
)
from latchkey.application.turns.finish import TurnOutcome, finish_turn
from latchkey.application.turns.resume import resume_turn
from latchkey.application.turns.start import StartedTurn, start_turn
from latchkey.domain.approval import NewDecision
from latchkey.domain.credentials import TASKS_WRITE
from latchkey.domain.errors import Exhausted, TurnInProgress, TurnLost
from latchkey.domain.message import NewMessage
from latchkey.domain.page import Window
from latchkey.domain.ports import ToolCallContext
from latchkey.domain.task import NewTask
from latchkey.domain.tool_call import ToolInvocation
from latchkey.domain.turn import Turn, Usage
from latchkey.infrastructure.database.event_bus import LocalEventBus
from latchkey.infrastructure.tool_context import HttpToolContexts
from tests.builders import LIMITS
from tests.contract.database.running_turn import RunningTurn
from tests.polling import wait_until
from tests.turns import profiles_of

ASKING = profiles_of(approve=("add_task",))
LEASE = timedelta(seconds=0.6)


class Delivered(Struct, frozen=True):
    """The result of the tool."""

    title: str


class ExternalTurn(RunningTurn):
    """A running turn with an open question about a call outside a transaction, which ends when it is released."""

    async def ask(self) -> None:
        started = await self.dispatchers[0].call(self.owner, start_turn, NewMessage("Go"), ASKING, LIMITS)
        assert isinstance(started, StartedTurn)
        self.started = started
        self.released = asyncio.Event()
        await self.ask_again("c1", timedelta(minutes=5))

    async def ask_again(self, call_id: str, ttl: timedelta) -> None:
        executor = ToolCallExecutor(self.dispatchers[0], approval_ttl=ttl)
        invocation = ToolInvocation("add_task", b'{"title":"Milk"}', call_id)
        await executor.execute(self.started.secret, invocation, add_task, NewTask("Milk"))

    async def wait(self) -> None:
        """End the step: the turn waits."""
        await self.dispatchers[0].call(self.owner, finish_turn, self.id, TurnOutcome("waiting", Usage(1, 2, 3)))

    async def approve(self) -> StoredDecision:
        """Approve the call, which then runs."""

        @tool(TASKS_WRITE, title="Deliver")
        async def deliver(context: ToolCallContext, title: str) -> Delivered:
            await self.released.wait()
            return Delivered(title)

        external = ExternalTool(deliver, 30)

        def bind(_: str, arguments: Any) -> BoundTool:
            return BoundTool(deliver, [arguments["title"]], external)

        dispatcher = self.dispatchers[0]
        runner = ExternalCallExecutor(dispatcher, ToolCallExecutor(dispatcher), LocalEventBus(), HttpToolContexts())
        (question,) = (await dispatcher.call(self.owner, list_approvals, Window())).items
        approvals = Approvals(dispatcher, runner, bind, LEASE)
        return await approvals.decide(self.owner, self.id, question.id, NewDecision("approve"), ASKING)

    async def resume(self) -> StartedTurn | None:
        return await self.dispatchers[1].call(self.owner, resume_turn, self.id, ASKING, replace(LIMITS, attempts=3))

    async def stored(self) -> Turn:
        """The turn as stored, also while it is to be continued."""
        async with self.dispatchers[0].unit_of_work(self.owner, Permission(None, "read"), "get_turn") as uow:
            return await uow.turns.get(self.id)

    async def is_resumed(self) -> bool:
        return await self.resume() is not None


@pytest.fixture
async def turn(running_turn: RunningTurn) -> ExternalTurn:
    turn = ExternalTurn(running_turn.dispatchers, running_turn.owner)
    await turn.ask()
    return turn


async def test_turn_goes_on_after_the_result_of_an_approved_external_call(turn: ExternalTurn) -> None:
    await turn.wait()
    stored = await turn.approve()
    assert stored.task
    assert await turn.resume() is None
    turn.released.set()
    await stored.task

    resumed = await turn.resume()

    assert resumed
    assert msgspec.json.decode(resumed.steps[0].tool_calls[0].result) == {"title": "Milk"}
    events = ["approval.decided", "tool_call.completed", "turn.resumed"]
    assert (await turn.event_names())[-3:] == events


async def test_external_call_approved_while_the_step_runs_keeps_its_turn_waiting(turn: ExternalTurn) -> None:
    """The turn is not continued without the result, though no question is open any more."""
    stored = await turn.approve()
    await turn.wait()

    assert await turn.resume() is None
    turn.released.set()
    assert stored.task
    await stored.task
    resumed = await turn.resume()
    assert resumed
    assert not resumed.steps[0].tool_calls[0].is_error


async def test_lease_of_a_turn_is_renewed_while_an_approved_external_call_runs(turn: ExternalTurn) -> None:
    """When its process has died, the turn goes on after the lease, and the call has no recorded result."""
    await turn.wait()
    stored = await turn.approve()
    until = (await turn.stored()).lease_until + LEASE

    async def is_renewed() -> bool:
        return (await turn.stored()).lease_until > until

    await wait_until(is_renewed)
    assert await turn.resume() is None
    assert stored.task
    stored.task.cancel()
    await asyncio.gather(stored.task, return_exceptions=True)
    await wait_until(turn.is_resumed)

    (call,) = (await turn.read()).tool_calls
    assert (call.is_error, msgspec.json.decode(call.result)["code"]) == (True, "no-result")
    assert b"may have had its effect" in bytes(call.result)


async def test_approved_external_call_beyond_the_limit_of_running_calls_stays_a_question(
    turn: ExternalTurn, monkeypatch: pytest.MonkeyPatch
) -> None:
    await turn.wait()
    monkeypatch.setattr(external_calls, "MAX_RUNNING_PER_USER", 0)
    with pytest.raises(Exhausted, match="running calls"):
        await turn.approve()
    monkeypatch.undo()

    stored = await turn.approve()
    turn.released.set()
    assert stored.task
    await stored.task
    assert await turn.resume()


async def test_expiry_of_another_question_does_not_end_the_wait_for_an_external_call(turn: ExternalTurn) -> None:
    await turn.ask_again("c2", timedelta(seconds=-1))
    await turn.wait()
    stored = await turn.approve()
    assert stored.task
    assert await turn.resume() is None
    turn.released.set()
    await stored.task

    resumed = await turn.resume()
    assert resumed
    assert [call.is_error for call in resumed.steps[0].tool_calls] == [False, True]


async def test_renewal_does_not_delay_a_turn_whose_calls_have_ended(turn: ExternalTurn) -> None:
    await turn.wait()
    stored = await turn.approve()
    turn.released.set()
    assert stored.task
    await stored.task
    await turn.dispatchers[0].call(turn.owner, renew_waiting_turn, turn.id, timedelta(minutes=5))

    assert await turn.resume()


async def test_result_of_an_approved_external_call_is_kept_if_the_process_of_the_step_dies(turn: ExternalTurn) -> None:
    stored = await turn.approve()
    await turn.expire_lease()

    assert await turn.resume() is None
    assert (await turn.stored()).status == "waiting"
    turn.released.set()
    assert stored.task
    await stored.task
    resumed = await turn.resume()
    assert resumed
    assert msgspec.json.decode(resumed.steps[0].tool_calls[0].result) == {"title": "Milk"}


@pytest.mark.parametrize("when_busy", ["reject", "interrupt"])
async def test_message_while_an_approved_external_call_runs_meets_a_running_turn(
    turn: ExternalTurn, when_busy: Literal["reject", "interrupt"]
) -> None:
    """No question is open: the turn does not wait for the user, and its result is not lost to a further message."""
    await turn.wait()
    stored = await turn.approve()
    message = NewMessage("And then?", turn.started.turn.conversation_id, when_busy=when_busy)
    starting = turn.dispatchers[0].call(turn.owner, start_turn, message, ASKING, LIMITS)

    if when_busy == "reject":
        with pytest.raises(TurnInProgress):
            await starting
    else:
        await starting
    turn.released.set()
    assert stored.task
    await stored.task
    assert (await turn.stored()).status == ("waiting" if when_busy == "reject" else "cancelled")
    assert (await turn.resume() is not None) == (when_busy == "reject")


async def test_message_after_the_last_decision_continues_the_turn_first(turn: ExternalTurn) -> None:
    await turn.wait()
    stored = await turn.approve()
    turn.released.set()
    assert stored.task
    await stored.task
    message = NewMessage("And then?", turn.started.turn.conversation_id)

    with pytest.raises(TurnLost):
        await turn.dispatchers[0].call(turn.owner, start_turn, message, ASKING, LIMITS)
    assert await turn.resume()
