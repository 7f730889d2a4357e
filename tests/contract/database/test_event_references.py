"""Events of tool calls refer to the recorded call for large arguments and results, which are stored once."""

from typing import Any

import msgspec

from latchkey.application.dispatcher import Dispatcher
from latchkey.application.tasks import add_task, list_tasks
from latchkey.application.tool_calls import ToolCallExecutor
from latchkey.domain.credentials import Owner
from latchkey.domain.errors import Invalid
from latchkey.domain.page import DEFAULT_LIMIT
from latchkey.domain.ports import UnitsOfWork
from latchkey.domain.task import NewTask
from latchkey.domain.tool_call import ToolInvocation
from latchkey.domain.turn_event import TurnEvent
from latchkey.infrastructure.database.event_bus import LocalEventBus
from latchkey.infrastructure.database.sql.engine import create_engine
from latchkey.infrastructure.database.unit_of_work import SqlUnitsOfWork
from tests.contract.database.running_turn import RunningTurn

LONG = "é" * 10_000


async def stored_bytes(units: UnitsOfWork, owner: Owner) -> int:
    async with units.open(owner, "read") as uow:
        return await uow.quota_usage.measure_storage()


def completed(events: list[TurnEvent]) -> list[Any]:
    return [msgspec.json.decode(event.body) for event in events if event.name == "tool_call.completed"]


async def test_event_log_equals_published_events_byte_for_byte(shared_database_url: str, me: Owner) -> None:
    """For arguments and results that are stored elsewhere, and for a call that was announced."""
    engine, bus = create_engine(shared_database_url), LocalEventBus()
    turn = RunningTurn([Dispatcher(SqlUnitsOfWork(engine, bus), lambda _call: None)], me)
    await turn.start()
    published: list[TurnEvent] = []
    with bus.subscribe(me, turn.id) as subscription:
        await turn.execute(add_task, NewTask("Milk", LONG))
        published += await subscription.next_events(1)
        await turn.announce("announced")
        await turn.execute(list_tasks, None, DEFAULT_LIMIT, None, call_id="announced")
        published += await subscription.next_events(1)
        await turn.finish("Done.")
        published += await subscription.next_events(1)

    assert sum(len(event.body) for event in published) > 3 * len(LONG)
    assert await turn.events(1) == published
    await engine.dispose()


async def test_large_result_is_stored_once(running_turn: RunningTurn, units: UnitsOfWork) -> None:
    await running_turn.execute(add_task, NewTask("Milk", LONG))
    before = await stored_bytes(units, running_turn.owner)

    await running_turn.execute(list_tasks, None, DEFAULT_LIMIT, None)

    size = await stored_bytes(units, running_turn.owner) - before
    assert len(LONG.encode()) < size < len(LONG.encode()) + 2000
    (_, listed) = completed(await running_turn.events())
    assert listed["result"]["items"][0]["description"] == LONG


async def test_large_arguments_are_stored_once_beside_the_effect(running_turn: RunningTurn, units: UnitsOfWork) -> None:
    before = await stored_bytes(units, running_turn.owner)

    await running_turn.add(LONG[:200], call_id="1")
    call = msgspec.json.encode({"title": "Long", "description": LONG})
    executor = ToolCallExecutor(running_turn.dispatchers[0])
    await executor.execute(
        running_turn.started.secret, ToolInvocation("add_task", call), add_task, NewTask("Long", LONG)
    )

    size = await stored_bytes(units, running_turn.owner) - before
    assert size < 3 * len(LONG.encode()) + 5000, "task, arguments and result"
    started = [event for event in await running_turn.events() if event.name == "tool_call.started"]
    assert msgspec.json.decode(started[1].body)["arguments"] == {"title": "Long", "description": LONG}


async def test_event_of_refused_call_has_its_arguments(running_turn: RunningTurn) -> None:
    invocation = ToolInvocation("add_task", msgspec.json.encode({"name": LONG}))
    await ToolCallExecutor(running_turn.dispatchers[0]).record_failure(
        running_turn.started.secret, invocation, add_task, Invalid.at("title", "is missing")
    )

    _, started, failed = await running_turn.events()
    assert msgspec.json.decode(started.body)["arguments"] == {"name": LONG}
    assert msgspec.json.decode(failed.body)["result"]["code"] == "invalid"


async def test_event_of_earlier_release_is_readable(running_turn: RunningTurn, units: UnitsOfWork) -> None:
    """Its row has no size and no reference, and the whole body."""
    (first,) = await running_turn.events()
    async with units.open(running_turn.owner, "write") as uow:
        old = TurnEvent(running_turn.id, 2, "tool_call.completed", b'{"id":"1","result":"%s"}' % (b"x" * 900))
        await uow.turn_events.add(old)
        await uow.commit()

    assert await running_turn.events() == [first, old]
