"""Approvals: a call that the user must approve has no effect before, and exactly one after."""

import asyncio
from datetime import timedelta
from functools import partial
from typing import Any
from uuid import uuid4

import msgspec
import pytest
from msgspec.structs import replace

from latchkey.application.access import Permission
from latchkey.application.conversations import list_messages
from latchkey.application.deletion import delete_conversation
from latchkey.application.dispatcher import Dispatcher
from latchkey.application.external_calls import ExternalCallExecutor
from latchkey.application.tasks import add_task, complete_task
from latchkey.application.tool_calls import ToolCallExecutor
from latchkey.application.turns.approvals import Approvals, BindTool, list_approvals
from latchkey.application.turns.finish import TurnOutcome, finish_turn
from latchkey.application.turns.resume import resume_turn
from latchkey.application.turns.start import StartedTurn, TurnProfiles, start_turn
from latchkey.bootstrap.registry import BUILT_IN, Registry
from latchkey.domain.approval import DecidedApproval, DecisionName, NewDecision
from latchkey.domain.credentials import TASKS_READ, Owner, UserId
from latchkey.domain.errors import Conflict, NotFound
from latchkey.domain.message import NewMessage
from latchkey.domain.page import Window
from latchkey.domain.task import NewTask, TaskId
from latchkey.domain.tool_call import ToolCall, ToolCallId, ToolInvocation, ToolOutcome
from latchkey.domain.turn import Usage
from latchkey.infrastructure.database.event_bus import LocalEventBus
from latchkey.infrastructure.tool_context import HttpToolContexts
from latchkey.interfaces.mcp.tools import bind_tool
from tests.builders import LIMITS
from tests.contract.database.running_turn import RunningTurn
from tests.turns import profiles_of

ASKING = profiles_of(approve=("add_task", "complete_task"))
TOOLS = Registry.of(*BUILT_IN).tools
PAST = timedelta(seconds=-1)


class AskingTurn(RunningTurn):
    """A running turn whose tools ask the user."""

    ttl = timedelta(minutes=5)

    async def start(self, *_: Any) -> None:
        started = await self.dispatchers[0].call(self.owner, start_turn, NewMessage("Go"), ASKING, LIMITS)
        assert isinstance(started, StartedTurn)
        self.started = started

    async def ask(self, title: str = "Milk", call_id: str | None = "c1", on: int = 0) -> ToolOutcome:
        """Call a tool that asks."""
        invocation = ToolInvocation("add_task", msgspec.json.encode({"title": title}), call_id)
        executor = ToolCallExecutor(self.dispatchers[on], approval_ttl=self.ttl)
        return await executor.execute(self.started.secret, invocation, add_task, NewTask(title))

    async def wait(self) -> None:
        """End the step: the turn waits."""
        await self.dispatchers[0].call(self.owner, finish_turn, self.id, TurnOutcome("waiting", Usage(1, 2, 3)))

    async def questions(self, owner: Owner | None = None) -> list[ToolCallId]:
        page = await self.dispatchers[0].call(owner or self.owner, list_approvals, Window())
        return [approval.id for approval in page.items]

    async def decide(
        self, decision: DecisionName, number: int = 0, *, on: int = 0, profiles: TurnProfiles = ASKING, **fields: Any
    ) -> DecidedApproval:
        calls = await self.calls()
        stored = await approvals_of(self.dispatchers[on]).decide(
            self.owner, self.id, calls[number].id, NewDecision(decision, **fields), profiles
        )
        assert stored.task is None
        return stored.approval

    async def calls(self) -> list[ToolCall]:
        """Read the calls, also of a turn that is to be continued."""
        async with self.dispatchers[0].unit_of_work(self.owner, Permission(None, "read"), "list_calls") as uow:
            return await uow.tool_calls.list_of_turn(self.id)

    async def resume(self, on: int = 0) -> StartedTurn | None:
        limits = replace(LIMITS, attempts=3)
        return await self.dispatchers[on].call(self.owner, resume_turn, self.id, ASKING, limits)


BIND = partial(bind_tool, TOOLS)


def approvals_of(dispatcher: Dispatcher, bind: BindTool = BIND) -> Approvals:
    executor = ToolCallExecutor(dispatcher)
    external = ExternalCallExecutor(dispatcher, executor, LocalEventBus(), HttpToolContexts())
    return Approvals(dispatcher, external, bind, timedelta(seconds=20))


@pytest.fixture
async def turn(running_turn: RunningTurn) -> AskingTurn:
    asking = AskingTurn(running_turn.dispatchers, running_turn.owner)
    await asking.start()
    return asking


def code_of(result: bytes) -> str:
    code: str = msgspec.json.decode(result)["code"]
    return code


async def test_call_that_asks_has_no_effect_and_is_listed(turn: AskingTurn) -> None:
    outcome = await turn.ask()
    await turn.wait()

    assert (outcome.is_waiting, outcome.code) == (True, "approval-required")
    assert await turn.task_titles() == []
    (call,) = (await turn.read()).tool_calls
    assert await turn.questions() == [call.id]
    assert (await turn.read()).status == "waiting"
    assert await turn.event_names() == ["turn.started", "tool_call.started", "approval.requested", "turn.waiting"]


async def test_repeated_call_asks_once(turn: AskingTurn) -> None:
    first, second = await asyncio.gather(turn.ask(on=0), turn.ask(on=1))
    other = await turn.ask("Bread")

    assert first.is_waiting
    assert second.is_waiting
    assert (other.is_waiting, other.code) == (False, "conflict")
    assert len(await turn.questions()) == 1


async def test_announced_call_asks(turn: AskingTurn) -> None:
    await turn.announce("c1")
    await turn.ask()

    assert len(await turn.questions()) == 1
    assert await turn.event_names() == ["turn.started", "tool_call.started", "approval.requested"]


async def test_approved_call_has_its_effect_once_with_the_arguments_that_were_shown(turn: AskingTurn) -> None:
    await turn.ask()
    await turn.wait()
    decided = await turn.decide("approve", on=1)
    repeated = await turn.decide("approve")

    assert (decided.name, msgspec.json.decode(decided.arguments)) == ("add_task", {"title": "Milk"})
    assert (decided.by, decided.is_error, repeated.decided_at) == ("user", False, decided.decided_at)
    assert await turn.task_titles() == ["Milk"]
    assert await turn.questions() == []
    assert await turn.resume()
    assert (await turn.event_names())[-3:] == ["approval.decided", "tool_call.completed", "turn.resumed"]


async def test_turn_goes_on_after_the_decision_with_the_result(turn: AskingTurn) -> None:
    await turn.ask()
    await turn.wait()
    await turn.decide("approve")
    first, second = await asyncio.gather(turn.resume(on=0), turn.resume(on=1))

    started = first or second
    assert started
    assert not (first and second)
    (step,) = started.steps
    assert not step.tool_calls[0].is_error
    assert (started.turn.status, started.turn.attempt, started.turn.recoveries) == ("running", 2, 0)
    assert (await turn.events())[-1].data.endswith(b'"attempt":2,"reason":"approval"}')


async def test_turn_is_resumed_by_the_next_read_after_a_crash_between_decision_and_resume(turn: AskingTurn) -> None:
    """The process dies between the two: the next read continues the turn."""
    await turn.ask()
    await turn.wait()
    await turn.decide("decline")

    started = await turn.resume(on=1)
    assert started
    assert code_of(started.steps[0].tool_calls[0].result) == "declined"


async def test_declined_call_has_no_effect_and_the_model_is_given_the_reason(turn: AskingTurn) -> None:
    await turn.ask()
    await turn.wait()
    decided = await turn.decide("decline", reason="Too much milk.")

    assert (decided.decision, decided.reason, decided.is_error) == ("decline", "Too much milk.", True)
    assert b"Their reason: Too much milk." in bytes(decided.result)
    assert await turn.resume()
    assert await turn.task_titles() == []


async def test_opposite_decision_is_refused(turn: AskingTurn) -> None:
    await turn.ask()
    await turn.wait()
    await turn.decide("decline")
    with pytest.raises(Conflict, match="declined before"):
        await turn.decide("approve")
    assert await turn.task_titles() == []


@pytest.mark.parametrize("second", ["approve", "decline"])
async def test_concurrent_decisions_have_one_effect(turn: AskingTurn, second: DecisionName) -> None:
    await turn.ask()
    await turn.wait()
    decisions: list[DecisionName] = ["approve", second] * 3
    results = await asyncio.gather(
        *(turn.decide(name, on=number % 2) for number, name in enumerate(decisions)), return_exceptions=True
    )

    decided = {result.decision for result in results if isinstance(result, DecidedApproval)}
    assert len(decided) == 1
    assert {type(result) for result in results} <= {DecidedApproval, *Conflict.__subclasses__(), Conflict}
    assert await turn.task_titles() == (["Milk"] if decided == {"approve"} else [])
    assert await turn.resume()
    assert (await turn.event_names()).count("approval.decided") == 1


async def test_question_expires_as_declined(turn: AskingTurn) -> None:
    turn.ttl = PAST
    await turn.ask()
    await turn.wait()
    assert await turn.questions() == []
    started = await turn.resume()

    assert started
    assert code_of(started.steps[0].tool_calls[0].result) == "declined"
    assert b'"by":"expiry"' in (await turn.events())[-3].data
    with pytest.raises(Conflict, match="because it expired"):
        await turn.decide("approve")
    assert await turn.task_titles() == []


async def test_expired_question_cannot_be_approved(turn: AskingTurn) -> None:
    turn.ttl = PAST
    await turn.ask()
    decisions: list[DecisionName] = ["approve", "decline"]
    for decision in decisions:
        with pytest.raises(Conflict, match="expired"):
            await turn.decide(decision)
    assert await turn.task_titles() == []


async def test_decision_before_the_step_has_ended(turn: AskingTurn) -> None:
    """The turn does not wait then: it is to be continued at once."""
    await turn.ask()
    await turn.decide("approve")
    await turn.append_text("Other text")
    await turn.wait()

    assert await turn.task_titles() == ["Milk"]
    assert await turn.resume()


async def test_questions_of_one_step_are_decided_one_by_one(turn: AskingTurn) -> None:
    await turn.ask("Milk", "c1")
    await turn.ask("Bread", "c2")
    await turn.wait()
    await turn.decide("approve", 1)
    assert await turn.resume() is None
    assert (await turn.event_names())[-1] == "turn.waiting"
    await turn.decide("decline", 0)

    started = await turn.resume()
    assert started
    (step,) = started.steps
    assert [call.is_error for call in step.tool_calls] == [True, False]
    assert await turn.task_titles() == ["Bread"]


async def test_turn_whose_process_died_after_it_asked_waits(turn: AskingTurn) -> None:
    await turn.ask("Milk", "c1")
    await turn.append_text("Lost text")
    await turn.expire_lease()
    assert await turn.resume(on=1) is None
    assert (await turn.read()).status == "waiting"
    await turn.decide("approve")
    started = await turn.resume()

    assert started
    assert (started.turn.answer_length, started.turn.recoveries) == (0, 0)
    assert await turn.task_titles() == ["Milk"]


async def test_further_message_declines_what_is_open(turn: AskingTurn) -> None:
    await turn.ask()
    await turn.wait()
    message = NewMessage("Forget it", turn.started.turn.conversation_id)
    started = await turn.dispatchers[1].call(turn.owner, start_turn, message, ASKING, LIMITS)

    assert isinstance(started, StartedTurn)
    (past,) = started.history
    assert code_of(past.tool_calls[0].result) == "declined"
    assert (await turn.read()).status == "cancelled"
    assert (await turn.event_names())[-3:] == ["approval.decided", "tool_call.completed", "turn.cancelled"]
    with pytest.raises(Conflict, match="by a further message"):
        await turn.decide("approve")


async def test_cancellation_declines_what_is_open(turn: AskingTurn) -> None:
    await turn.ask()
    await turn.wait()
    cancelled = await turn.cancel()

    assert (cancelled.status, code_of(cancelled.tool_calls[0].result)) == ("cancelled", "declined")
    with pytest.raises(Conflict, match="with its turn"):
        await turn.decide("approve")
    assert await turn.task_titles() == []


async def test_failed_turn_leaves_no_question(turn: AskingTurn) -> None:
    await turn.ask()
    await turn.finish(status="failed")

    assert await turn.questions() == []
    assert (await turn.event_names())[-1] == "turn.cancelled"


async def test_deleted_conversation_has_no_questions(turn: AskingTurn) -> None:
    await turn.ask()
    await turn.wait()
    await turn.dispatchers[0].call(turn.owner, delete_conversation, turn.started.turn.conversation_id)

    assert await turn.questions() == []


async def test_approved_call_that_fails_has_its_error_and_is_not_made_again(turn: AskingTurn) -> None:
    task_id = TaskId(uuid4())
    invocation = ToolInvocation("complete_task", msgspec.json.encode({"task_id": task_id}), "c1")
    executor = ToolCallExecutor(turn.dispatchers[0])
    assert (await executor.execute(turn.started.secret, invocation, complete_task, task_id)).is_waiting
    await turn.wait()
    decided = await turn.decide("approve")

    assert (decided.decision, decided.is_error, code_of(decided.result)) == ("approve", True, "not-found")
    assert await turn.decide("approve") == decided
    assert await turn.resume()


@pytest.mark.parametrize("profile", [{"grants": [TASKS_READ]}, {"tools": ("list_tasks",)}], ids=["grants", "tools"])
async def test_approved_call_has_the_rights_of_its_turn(turn: AskingTurn, profile: dict[str, Any]) -> None:
    """The user could add a task, the assistant cannot any more."""
    await turn.ask()
    await turn.wait()
    decided = await turn.decide("approve", profiles=profiles_of(**profile))

    assert code_of(decided.result) == "forbidden"
    assert await turn.task_titles() == []


async def test_task_of_an_approved_call_belongs_to_its_conversation(turn: AskingTurn) -> None:
    await turn.ask()
    await turn.wait()
    decided = await turn.decide("approve")

    assert msgspec.json.decode(decided.result)["conversation_id"] == str(turn.started.turn.conversation_id)


async def test_question_of_another_user_does_not_exist(turn: AskingTurn) -> None:
    await turn.ask()
    await turn.wait()
    stranger = Owner(UserId(f"u-{uuid4()}"))
    calls = (await turn.read()).tool_calls

    assert await turn.questions(stranger) == []
    for decision in ("approve", "decline"):
        with pytest.raises(NotFound):
            await approvals_of(turn.dispatchers[0]).decide(
                stranger, turn.id, calls[0].id, NewDecision(decision), ASKING
            )
    assert len(await turn.questions()) == 1


async def test_call_that_did_not_ask_cannot_be_decided(turn: AskingTurn) -> None:
    with pytest.raises(NotFound):
        await approvals_of(turn.dispatchers[0]).decide(
            turn.owner, turn.id, ToolCallId(uuid4()), NewDecision("approve"), ASKING
        )


async def test_waiting_turn_does_not_block_other_turns(turn: AskingTurn) -> None:
    await turn.ask()
    await turn.wait()
    limits = replace(LIMITS, turns_per_user=2)  # the fixture has started one, too

    assert isinstance(
        await turn.dispatchers[0].call(turn.owner, start_turn, NewMessage("Go"), ASKING, limits), StartedTurn
    )
    messages = await turn.dispatchers[0].call(turn.owner, list_messages, turn.started.turn.conversation_id, Window())
    assert [message.role for message in messages.items] == ["user"]


async def test_open_questions_are_listed_oldest_first_in_pages(turn: AskingTurn) -> None:
    for number in range(3):
        await turn.ask(f"Task {number}", f"c{number}")
    first = await turn.dispatchers[0].call(turn.owner, list_approvals, Window(2))
    second = await turn.dispatchers[0].call(turn.owner, list_approvals, Window(2, first.next_cursor))

    titles = [msgspec.json.decode(item.arguments)["title"] for item in [*first.items, *second.items]]
    assert titles == ["Task 0", "Task 1", "Task 2"]
    assert second.next_cursor is None
