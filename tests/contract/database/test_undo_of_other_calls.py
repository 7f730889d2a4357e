"""Undo of a turn whose calls were approved by the user, or ran outside a transaction."""

from collections.abc import AsyncIterator
from datetime import timedelta
from functools import partial
from typing import Any

import msgspec
import pytest

from latchkey.application.dispatcher import Dispatcher
from latchkey.application.external_calls import ExternalCallExecutor
from latchkey.application.tasks import complete_task, delete_task, get_task
from latchkey.application.tool_calls import ToolCallExecutor
from latchkey.application.turns.approvals import Approvals, start_call
from latchkey.application.turns.finish import TurnOutcome, finish_turn
from latchkey.application.turns.start import start_turn
from latchkey.bootstrap.registry import BUILT_IN, Registry
from latchkey.domain.approval import Decision, NewDecision
from latchkey.domain.credentials import BUILT_IN_GRANTS, Owner
from latchkey.domain.message import NewMessage
from latchkey.domain.task import Task
from latchkey.domain.tool_call import ToolInvocation
from latchkey.domain.turn import Usage
from latchkey.domain.undo import NotUndoable
from latchkey.infrastructure.database.event_bus import LocalEventBus
from latchkey.infrastructure.tool_context import HttpToolContexts
from latchkey.interfaces.mcp.tools import bind_tool
from tests.builders import LIMITS
from tests.contract.database.external_tools import OrderTool, Replica, run_replicas
from tests.contract.database.undone_turn import UndoneTurn, read_tasks
from tests.turns import profiles_of

ASKING = profiles_of(list(BUILT_IN_GRANTS), approve=("complete_task",))
LEASE = timedelta(seconds=20)


@pytest.fixture
async def process(shared_database_url: str) -> AsyncIterator[Replica]:
    async with run_replicas(shared_database_url, 1) as (process,):
        yield process


async def asking_turn(dispatcher: Dispatcher, me: Owner) -> tuple[UndoneTurn, Task]:
    """A turn that waits for the user to approve that a task is completed."""
    started: Any = await dispatcher.call(me, start_turn, NewMessage("Go"), ASKING, LIMITS)
    turn = UndoneTurn(dispatcher, me, started)
    task = await turn.add_task()
    arguments = msgspec.json.encode({"task_id": task.id})
    invocation = ToolInvocation("complete_task", arguments, "call-1")
    executor = ToolCallExecutor(dispatcher, approval_ttl=timedelta(minutes=5))
    assert (await executor.execute(started.secret, invocation, complete_task, task.id)).is_waiting
    await turn.own(finish_turn, turn.id, TurnOutcome("waiting", Usage()))
    return turn, task


async def approve(turn: UndoneTurn) -> None:
    external = ExternalCallExecutor(
        turn.dispatcher, ToolCallExecutor(turn.dispatcher), LocalEventBus(), HttpToolContexts()
    )
    bind = partial(bind_tool, Registry.of(*BUILT_IN).tools)
    call = (await turn.read()).tool_calls[0]
    decision = NewDecision("approve")
    await Approvals(turn.dispatcher, external, bind, LEASE).decide(turn.owner, turn.id, call.id, decision, ASKING)


async def test_undo_of_an_approved_call(dispatcher: Dispatcher, me: Owner) -> None:
    turn, before = await asking_turn(dispatcher, me)
    await approve(turn)
    assert (await turn.own(get_task, before.id)).status == "completed"
    await turn.cancel()
    undone = await turn.undo()
    after = await turn.own(get_task, before.id)

    assert undone.undone_at is not None
    assert (after.status, after.version) == ("pending", 3)


async def test_undo_of_an_approved_call_that_failed_finds_nothing(dispatcher: Dispatcher, me: Owner) -> None:
    turn, before = await asking_turn(dispatcher, me)
    await turn.own(delete_task, before.id)
    await approve(turn)
    await turn.cancel()

    assert not (await turn.read()).can_undo
    with pytest.raises(NotUndoable, match="nothing to undo"):
        await turn.undo()


async def test_undo_of_an_approved_call_outside_a_transaction_is_a_conflict(dispatcher: Dispatcher, me: Owner) -> None:
    turn, _ = await asking_turn(dispatcher, me)
    call = (await turn.read()).tool_calls[0]
    await turn.own(start_call, turn.id, call.id, Decision("approve", "user", None), LEASE, is_external=True)
    await turn.cancel()

    assert not (await turn.read()).can_undo
    with pytest.raises(NotUndoable, match="another service") as error:
        await turn.undo()
    conflicts: Any = error.value.members["conflicts"]
    assert [(conflict.tool_call_id, conflict.reason) for conflict in conflicts] == [(call.id, "external")]


async def test_undo_of_a_call_outside_a_transaction_is_a_conflict(process: Replica, me: Owner) -> None:
    """Unless the tool has a read grant."""
    tool = OrderTool()
    tool.release.set()
    turn = await UndoneTurn.start(process.dispatcher, me)
    await turn.call(complete_task, (await turn.add_task()).id)
    await process.call(turn.started.secret, tool.stock, call_id="call-1")
    await turn.finish()
    assert (await turn.read()).can_undo
    await turn.undo()

    second = await UndoneTurn.start(process.dispatcher, me, turn.conversation_id)
    await second.call(complete_task, next(iter((await read_tasks(process.dispatcher, me)).values())).id)
    await process.call(second.started.secret, tool.order, call_id="call-1")
    await second.finish()
    assert not (await second.read()).can_undo
    with pytest.raises(NotUndoable, match="another service") as error:
        await second.undo()
    conflicts: Any = error.value.members["conflicts"]
    assert [(conflict.kind, conflict.reason) for conflict in conflicts] == [(None, "external")]
    (task,) = (await read_tasks(process.dispatcher, me)).values()
    assert task.status == "completed"
