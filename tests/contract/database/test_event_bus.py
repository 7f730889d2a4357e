"""Contract of the event bus: subscribers receive what any process commits to their turn, and nothing else."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, suppress

import pytest

from latchkey.application.turns.read import PAGE_CHARACTERS
from latchkey.domain.credentials import Owner
from latchkey.domain.turn_event import MessageDeltaEvent, TurnEvent
from latchkey.infrastructure.database.events.local import MOST_BYTES
from tests.builders import a_task
from tests.contract.database.event_bus_pair import BusPair, next_events, run_process


@pytest.fixture(params=["sqlite", "postgresql", "postgresql, two processes"])
def place(request: pytest.FixtureRequest) -> tuple[str, bool]:
    """A database, and whether it is followed from another process than the one that commits."""
    kind, _, two = request.param.partition(", ")
    return request.getfixturevalue(f"shared_{kind}_url"), bool(two)


@pytest.fixture
async def line(place: tuple[str, bool], me: Owner) -> AsyncIterator[BusPair]:
    url, two = place
    async with AsyncExitStack() as processes:
        speaker = await processes.enter_async_context(run_process(url))
        listener = await processes.enter_async_context(run_process(url)) if two else speaker
        line = BusPair(speaker, listener, me)
        await line.begin()
        yield line


@pytest.fixture
async def home(shared_database_url: str, me: Owner) -> AsyncIterator[BusPair]:
    """A line within one process."""
    async with run_process(shared_database_url) as process:
        line = BusPair(process, process, me)
        await line.begin()
        yield line


async def test_event_bus_delivers_events_after_commit(line: BusPair) -> None:
    """Either the event itself, or that there is something in the log; and not before the commit."""
    running_turn = line.running_turn
    with line.listener.event_bus.subscribe(running_turn.owner, running_turn.id) as subscription:
        waiting = asyncio.create_task(next_events(subscription))
        async with line.speaker.units.open(running_turn.owner, "write") as uow:
            seq = await uow.turns.count_tool_call(running_turn.id, uow.now, 1, 100)
            event = TurnEvent.of(running_turn.id, seq, MessageDeltaEvent("Said"))
            await uow.turn_events.add(event)
            for _ in range(20):
                await uow.turns.list_running()
            assert not waiting.done()
            await uow.commit()
        assert await waiting in ([event], [])
        async with line.listener.units.open(running_turn.owner, "read") as uow:
            assert await uow.turn_events.list_after(running_turn.id, 1, 10, PAGE_CHARACTERS) == [event]


async def test_event_bus_rollback_delivers_nothing(line: BusPair) -> None:
    running_turn = line.running_turn
    with line.listener.event_bus.subscribe(running_turn.owner, running_turn.id) as subscription:
        waiting = asyncio.create_task(next_events(subscription))
        async with line.speaker.units.open(running_turn.owner, "write") as uow:
            await uow.turn_events.add(TurnEvent.of(running_turn.id, 2, MessageDeltaEvent("Never said")))
        await line.carries()
        assert not waiting.done()
        await running_turn.tell("Said")
        assert [event.body for event in await waiting] in ([b'{"text":"Said"}'], [])


async def test_event_bus_refused_commit_delivers_nothing(line: BusPair) -> None:
    """One that keeps the rest, where a statement was refused, does."""
    running_turn, twice, committed = line.running_turn, a_task(), False
    with line.listener.event_bus.subscribe(running_turn.owner, running_turn.id) as subscription:
        waiting = asyncio.create_task(next_events(subscription))
        with suppress(Exception):
            async with line.speaker.units.open(running_turn.owner, "write") as uow:
                await uow.turns.count_tool_call(running_turn.id, uow.now, 1, 100)
                await uow.turn_events.add(TurnEvent.of(running_turn.id, 2, MessageDeltaEvent("Said")))
                await uow.tasks.add(twice)
                with pytest.raises(Exception, match=r"UNIQUE|unique"):  # noqa: PT012 # a unit of work is one thing
                    await uow.tasks.add(twice)
                    await uow.tasks.get(twice.id)
                await uow.commit()
                committed = True
        await line.carries()
        assert waiting.done() == committed
        waiting.cancel()
    assert (await running_turn.names() == ["turn.started", "message.delta"]) == committed


async def test_event_bus_isolation_between_turns_and_users(line: BusPair, you: Owner) -> None:
    """Not even of a turn with the same id."""
    running_turn, event_bus = line.running_turn, line.listener.event_bus
    first = running_turn.id
    await running_turn.begin()
    await line.carries()
    with (
        event_bus.subscribe(running_turn.owner, first) as another_turn,
        event_bus.subscribe(you, running_turn.id) as another_person,
    ):
        waiting = [asyncio.create_task(next_events(one)) for one in (another_turn, another_person)]
        await running_turn.tell("Said")
        await line.carries()
        assert not any(task.done() for task in waiting)
        event_bus.wake_all()
        assert await asyncio.gather(*waiting) == [[], []]


async def test_event_bus_delivers_to_every_subscriber(line: BusPair) -> None:
    running_turn, event_bus = line.running_turn, line.listener.event_bus
    with (
        event_bus.subscribe(running_turn.owner, running_turn.id) as one,
        event_bus.subscribe(running_turn.owner, running_turn.id) as other,
    ):
        await running_turn.tell("Said")
        assert await next_events(one) == await next_events(other)


async def test_event_bus_buffers_events_between_waits(line: BusPair) -> None:
    running_turn = line.running_turn
    with line.listener.event_bus.subscribe(running_turn.owner, running_turn.id) as subscription:
        await running_turn.tell("Said")
        await line.carries()
        await next_events(subscription)


async def test_event_bus_wake_all_returns_empty_list(line: BusPair) -> None:
    running_turn, event_bus = line.running_turn, line.listener.event_bus
    with event_bus.subscribe(running_turn.owner, running_turn.id) as subscription:
        waiting = asyncio.create_task(next_events(subscription))
        await asyncio.sleep(0)
        event_bus.wake_all()
        assert await waiting == []


async def test_event_bus_next_events_timeout_returns_empty_list(line: BusPair) -> None:
    running_turn = line.running_turn
    with line.listener.event_bus.subscribe(running_turn.owner, running_turn.id) as subscription:
        assert await subscription.next_events(0.01) == []
        await running_turn.tell("Said")
        await next_events(subscription)


async def test_event_bus_local_delivery_has_events_in_order(home: BusPair) -> None:
    running_turn = home.running_turn
    with home.listener.event_bus.subscribe(running_turn.owner, running_turn.id) as subscription:
        await running_turn.tell("Let me")
        await running_turn.add()
        await running_turn.finish("Let me see.")
        assert await next_events(subscription) == (await running_turn.events())[1:]


async def test_event_bus_local_delivery_has_no_duplicate(home: BusPair) -> None:
    """Not again as the notification that went out to other processes."""
    running_turn = home.running_turn
    with home.listener.event_bus.subscribe(running_turn.owner, running_turn.id) as subscription:
        await running_turn.tell("Said")
        assert await next_events(subscription) == (await running_turn.events())[1:]
        waiting = asyncio.create_task(next_events(subscription))
        await home.carries()
        assert not waiting.done()
        waiting.cancel()


@pytest.mark.parametrize("size", [100, MOST_BYTES // 3, MOST_BYTES])
async def test_event_bus_buffer_of_slow_subscriber_is_limited(home: BusPair, size: int) -> None:
    """Who has missed something is told to look into the log; from then on they hear of events as before."""
    running_turn, said = home.running_turn, 0
    with home.listener.event_bus.subscribe(running_turn.owner, running_turn.id) as subscription:
        for _ in range(5):
            await running_turn.tell("x" * size, said)
            said += size
            assert sum(len(event.body) for event in subscription._events) <= MOST_BYTES
        missed = (await running_turn.events())[1:]
        assert await next_events(subscription) == (missed if 5 * size < MOST_BYTES else [])

        await running_turn.tell("And", said)
        assert await next_events(subscription) == (await running_turn.events())[6:]


async def test_event_bus_unsubscribe_releases_subscription(line: BusPair) -> None:
    event_bus, running_turn = line.listener.event_bus, line.running_turn
    with (
        event_bus.subscribe(running_turn.owner, running_turn.id),
        event_bus.subscribe(running_turn.owner, running_turn.id),
    ):
        await running_turn.tell("Said")
    assert event_bus._listeners == {}
