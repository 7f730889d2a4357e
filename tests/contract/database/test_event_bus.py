"""Contract of the event bus: subscribers receive what any process commits to their turn, and nothing else."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, suppress

import pytest

from latchkey.application.turns.read import EVENT_PAGE_BYTES
from latchkey.domain.credentials import Owner
from latchkey.domain.turn_event import MessageDeltaEvent, TurnEvent
from latchkey.infrastructure.database.event_bus import MAX_BUFFERED_BYTES
from tests.builders import a_task
from tests.contract.database.event_bus_pair import BusPair, next_events, run_process


@pytest.fixture(params=["sqlite", "postgresql", "postgresql, two processes"])
def place(request: pytest.FixtureRequest) -> tuple[str, bool]:
    """Each database; with and without a second process that subscribes."""
    kind, _, two = request.param.partition(", ")
    return request.getfixturevalue(f"shared_{kind}_url"), bool(two)


@pytest.fixture
async def pair(place: tuple[str, bool], me: Owner) -> AsyncIterator[BusPair]:
    url, two = place
    async with AsyncExitStack() as processes:
        publisher = await processes.enter_async_context(run_process(url))
        subscriber = await processes.enter_async_context(run_process(url)) if two else publisher
        pair = BusPair(publisher, subscriber, me)
        await pair.start()
        yield pair


@pytest.fixture
async def local_pair(shared_database_url: str, me: Owner) -> AsyncIterator[BusPair]:
    """Publisher and subscriber in the same process."""
    async with run_process(shared_database_url) as process:
        pair = BusPair(process, process, me)
        await pair.start()
        yield pair


async def test_event_bus_delivers_events_after_commit(pair: BusPair) -> None:
    """As the event itself or as a hint to read the log, and not before the commit."""
    running_turn = pair.running_turn
    with pair.subscriber.event_bus.subscribe(running_turn.owner, running_turn.id) as subscription:
        waiting = asyncio.create_task(next_events(subscription))
        async with pair.publisher.units.open(running_turn.owner, "write") as uow:
            seq = await uow.turns.count_tool_call(running_turn.id, uow.now, 1, 100)
            event = TurnEvent.of(running_turn.id, seq, MessageDeltaEvent("Said"))
            await uow.turn_events.add(event)
            for _ in range(20):
                await uow.turns.list_running()
            assert not waiting.done()
            await uow.commit()
        assert await waiting in ([event], [])
        async with pair.subscriber.units.open(running_turn.owner, "read") as uow:
            assert await uow.turn_events.list_after(running_turn.id, 1, 10, EVENT_PAGE_BYTES) == [event]


async def test_event_bus_rollback_delivers_nothing(pair: BusPair) -> None:
    running_turn = pair.running_turn
    with pair.subscriber.event_bus.subscribe(running_turn.owner, running_turn.id) as subscription:
        waiting = asyncio.create_task(next_events(subscription))
        async with pair.publisher.units.open(running_turn.owner, "write") as uow:
            await uow.turn_events.add(TurnEvent.of(running_turn.id, 2, MessageDeltaEvent("Rolled back")))
        await pair.flush()
        assert not waiting.done()
        await running_turn.append_text("Said")
        assert [event.body for event in await waiting] in ([b'{"text":"Said"}'], [])


async def test_event_bus_refused_commit_delivers_nothing(pair: BusPair) -> None:
    """Unless the database keeps the other statements after a refused one: then their events are delivered."""
    running_turn, twice, committed = pair.running_turn, a_task(), False
    with pair.subscriber.event_bus.subscribe(running_turn.owner, running_turn.id) as subscription:
        waiting = asyncio.create_task(next_events(subscription))
        with suppress(Exception):
            async with pair.publisher.units.open(running_turn.owner, "write") as uow:
                await uow.turns.count_tool_call(running_turn.id, uow.now, 1, 100)
                await uow.turn_events.add(TurnEvent.of(running_turn.id, 2, MessageDeltaEvent("Said")))
                await uow.tasks.add(twice)
                with pytest.raises(Exception, match=r"UNIQUE|unique"):  # noqa: PT012 # a unit of work is one thing
                    await uow.tasks.add(twice)
                    await uow.tasks.get(twice.id)
                await uow.commit()
                committed = True
        await pair.flush()
        assert waiting.done() == committed
        waiting.cancel()
    assert (await running_turn.event_names() == ["turn.started", "message.delta"]) == committed


async def test_event_bus_isolation_between_turns_and_users(pair: BusPair, you: Owner) -> None:
    """Including a turn of another user with the same id."""
    running_turn, event_bus = pair.running_turn, pair.subscriber.event_bus
    first = running_turn.id
    await running_turn.start()
    await pair.flush()
    with (
        event_bus.subscribe(running_turn.owner, first) as another_turn,
        event_bus.subscribe(you, running_turn.id) as another_user,
    ):
        waiting = [asyncio.create_task(next_events(one)) for one in (another_turn, another_user)]
        await running_turn.append_text("Said")
        await pair.flush()
        assert not any(task.done() for task in waiting)
        event_bus.wake_all()
        assert await asyncio.gather(*waiting) == [[], []]


async def test_event_bus_delivers_to_every_subscriber(pair: BusPair) -> None:
    running_turn, event_bus = pair.running_turn, pair.subscriber.event_bus
    with (
        event_bus.subscribe(running_turn.owner, running_turn.id) as one,
        event_bus.subscribe(running_turn.owner, running_turn.id) as other,
    ):
        await running_turn.append_text("Said")
        assert await next_events(one) == await next_events(other)


async def test_event_bus_buffers_events_between_waits(pair: BusPair) -> None:
    running_turn = pair.running_turn
    with pair.subscriber.event_bus.subscribe(running_turn.owner, running_turn.id) as subscription:
        await running_turn.append_text("Said")
        await pair.flush()
        await next_events(subscription)


async def test_event_bus_wake_all_returns_empty_list(pair: BusPair) -> None:
    running_turn, event_bus = pair.running_turn, pair.subscriber.event_bus
    with event_bus.subscribe(running_turn.owner, running_turn.id) as subscription:
        waiting = asyncio.create_task(next_events(subscription))
        await asyncio.sleep(0)
        event_bus.wake_all()
        assert await waiting == []


async def test_event_bus_next_events_timeout_returns_empty_list(pair: BusPair) -> None:
    running_turn = pair.running_turn
    with pair.subscriber.event_bus.subscribe(running_turn.owner, running_turn.id) as subscription:
        assert await subscription.next_events(0.01) == []
        await running_turn.append_text("Said")
        await next_events(subscription)


async def test_event_bus_local_delivery_has_events_in_order(local_pair: BusPair) -> None:
    running_turn = local_pair.running_turn
    with local_pair.subscriber.event_bus.subscribe(running_turn.owner, running_turn.id) as subscription:
        await running_turn.append_text("Let me")
        await running_turn.add()
        await running_turn.finish("Let me see.")
        assert await next_events(subscription) == (await running_turn.events())[1:]


async def test_event_bus_local_delivery_has_no_duplicate(local_pair: BusPair) -> None:
    """The notification to other processes is not delivered again."""
    running_turn = local_pair.running_turn
    with local_pair.subscriber.event_bus.subscribe(running_turn.owner, running_turn.id) as subscription:
        await running_turn.append_text("Said")
        assert await next_events(subscription) == (await running_turn.events())[1:]
        waiting = asyncio.create_task(next_events(subscription))
        await local_pair.flush()
        assert not waiting.done()
        waiting.cancel()


@pytest.mark.parametrize("size", [100, MAX_BUFFERED_BYTES // 3, MAX_BUFFERED_BYTES])
async def test_event_bus_buffer_of_slow_subscriber_is_limited(local_pair: BusPair, size: int) -> None:
    """After an overflow the subscriber gets a hint to read the log, and then receives events again."""
    running_turn, length = local_pair.running_turn, 0
    with local_pair.subscriber.event_bus.subscribe(running_turn.owner, running_turn.id) as subscription:
        for _ in range(5):
            await running_turn.append_text("x" * size, length)
            length += size
            assert sum(len(event.body) for event in subscription._events) <= MAX_BUFFERED_BYTES
        missed = (await running_turn.events())[1:]
        assert await next_events(subscription) == (missed if 5 * size < MAX_BUFFERED_BYTES else [])

        await running_turn.append_text("And", length)
        assert await next_events(subscription) == (await running_turn.events())[6:]


async def test_event_bus_unsubscribe_releases_subscription(pair: BusPair) -> None:
    event_bus, running_turn = pair.subscriber.event_bus, pair.running_turn
    with (
        event_bus.subscribe(running_turn.owner, running_turn.id),
        event_bus.subscribe(running_turn.owner, running_turn.id),
    ):
        await running_turn.append_text("Said")
    assert event_bus._subscriptions == {}
