"""The laws of the feed: who follows a turn hears of all that is committed to it, wherever, and of nothing else."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, suppress

import pytest

from latchkey.application.turns.read import PAGE_CHARACTERS
from latchkey.domain.credentials import Owner
from latchkey.domain.turn_event import MessageDeltaEvent, TurnEvent
from latchkey.infrastructure.database.events.local import MOST_BYTES
from tests.builders import a_task
from tests.contract.database.line import Line, a_process, news


@pytest.fixture(params=["sqlite", "postgresql", "postgresql, two processes"])
def place(request: pytest.FixtureRequest) -> tuple[str, bool]:
    """A database, and whether it is followed from another process than the one that commits."""
    kind, _, two = request.param.partition(", ")
    return request.getfixturevalue(f"shared_{kind}_url"), bool(two)


@pytest.fixture
async def line(place: tuple[str, bool], me: Owner) -> AsyncIterator[Line]:
    url, two = place
    async with AsyncExitStack() as processes:
        speaker = await processes.enter_async_context(a_process(url))
        listener = await processes.enter_async_context(a_process(url)) if two else speaker
        line = Line(speaker, listener, me)
        await line.begin()
        yield line


@pytest.fixture
async def home(shared_database_url: str, me: Owner) -> AsyncIterator[Line]:
    """A line within one process."""
    async with a_process(shared_database_url) as process:
        line = Line(process, process, me)
        await line.begin()
        yield line


async def test_what_is_committed_is_told_once_it_can_be_read(line: Line) -> None:
    """Either the event itself, or that there is something in the log; and not before the commit."""
    course = line.course
    with line.listener.event_bus.subscribe(course.owner, course.id) as subscription:
        waiting = asyncio.create_task(news(subscription))
        async with line.speaker.units.open(course.owner, "write") as uow:
            seq = await uow.turns.count_tool_call(course.id, uow.now, 1, 100)
            event = TurnEvent.of(course.id, seq, MessageDeltaEvent("Said"))
            await uow.turn_events.add(event)
            for _ in range(20):
                await uow.turns.list_running()
            assert not waiting.done()
            await uow.commit()
        assert await waiting in ([event], [])
        async with line.listener.units.open(course.owner, "read") as uow:
            assert await uow.turn_events.list_after(course.id, 1, 10, PAGE_CHARACTERS) == [event]


async def test_what_is_rolled_back_is_never_told(line: Line) -> None:
    course = line.course
    with line.listener.event_bus.subscribe(course.owner, course.id) as subscription:
        waiting = asyncio.create_task(news(subscription))
        async with line.speaker.units.open(course.owner, "write") as uow:
            await uow.turn_events.add(TurnEvent.of(course.id, 2, MessageDeltaEvent("Never said")))
        await line.carries()
        assert not waiting.done()
        await course.tell("Said")
        assert [event.body for event in await waiting] in ([b'{"text":"Said"}'], [])


async def test_a_commit_that_is_refused_tells_nothing(line: Line) -> None:
    """One that keeps the rest, where a statement was refused, does."""
    course, twice, committed = line.course, a_task(), False
    with line.listener.event_bus.subscribe(course.owner, course.id) as subscription:
        waiting = asyncio.create_task(news(subscription))
        with suppress(Exception):
            async with line.speaker.units.open(course.owner, "write") as uow:
                await uow.turns.count_tool_call(course.id, uow.now, 1, 100)
                await uow.turn_events.add(TurnEvent.of(course.id, 2, MessageDeltaEvent("Said")))
                await uow.tasks.add(twice)
                with pytest.raises(Exception, match=r"UNIQUE|unique"):  # noqa: PT012 # a unit of work is one thing
                    await uow.tasks.add(twice)
                    await uow.tasks.get(twice.id)
                await uow.commit()
                committed = True
        await line.carries()
        assert waiting.done() == committed
        waiting.cancel()
    assert (await course.names() == ["turn.started", "message.delta"]) == committed


async def test_followers_of_other_turns_and_of_other_people_hear_nothing(line: Line, you: Owner) -> None:
    """Not even of a turn with the same id."""
    course, event_bus = line.course, line.listener.event_bus
    first = course.id
    await course.begin()
    await line.carries()
    with (
        event_bus.subscribe(course.owner, first) as another_turn,
        event_bus.subscribe(you, course.id) as another_person,
    ):
        waiting = [asyncio.create_task(news(one)) for one in (another_turn, another_person)]
        await course.tell("Said")
        await line.carries()
        assert not any(task.done() for task in waiting)
        event_bus.wake_all()
        assert await asyncio.gather(*waiting) == [[], []]


async def test_all_who_follow_a_turn_hear_of_it(line: Line) -> None:
    course, event_bus = line.course, line.listener.event_bus
    with event_bus.subscribe(course.owner, course.id) as one, event_bus.subscribe(course.owner, course.id) as other:
        await course.tell("Said")
        assert await news(one) == await news(other)


async def test_news_that_came_before_anybody_waited_is_not_lost(line: Line) -> None:
    course = line.course
    with line.listener.event_bus.subscribe(course.owner, course.id) as subscription:
        await course.tell("Said")
        await line.carries()
        await news(subscription)


async def test_whoever_is_roused_is_given_no_news_at_once(line: Line) -> None:
    course, event_bus = line.course, line.listener.event_bus
    with event_bus.subscribe(course.owner, course.id) as subscription:
        waiting = asyncio.create_task(news(subscription))
        await asyncio.sleep(0)
        event_bus.wake_all()
        assert await waiting == []


async def test_patience_comes_to_an_end(line: Line) -> None:
    course = line.course
    with line.listener.event_bus.subscribe(course.owner, course.id) as subscription:
        assert await subscription.next_events(0.01) == []
        await course.tell("Said")
        await news(subscription)


async def test_the_own_process_tells_the_events_themselves_in_order(home: Line) -> None:
    course = home.course
    with home.listener.event_bus.subscribe(course.owner, course.id) as subscription:
        await course.tell("Let me")
        await course.add()
        await course.finish("Let me see.")
        assert await news(subscription) == (await course.events())[1:]


async def test_what_is_told_at_home_comes_only_once(home: Line) -> None:
    """Not again as the notification that went out to other processes."""
    course = home.course
    with home.listener.event_bus.subscribe(course.owner, course.id) as subscription:
        await course.tell("Said")
        assert await news(subscription) == (await course.events())[1:]
        waiting = asyncio.create_task(news(subscription))
        await home.carries()
        assert not waiting.done()
        waiting.cancel()


@pytest.mark.parametrize("size", [100, MOST_BYTES // 3, MOST_BYTES])
async def test_little_is_kept_for_a_slow_follower(home: Line, size: int) -> None:
    """Who has missed something is told to look into the log; from then on they hear of events as before."""
    course, said = home.course, 0
    with home.listener.event_bus.subscribe(course.owner, course.id) as subscription:
        for _ in range(5):
            await course.tell("x" * size, said)
            said += size
            assert sum(len(event.body) for event in subscription._events) <= MOST_BYTES
        missed = (await course.events())[1:]
        assert await news(subscription) == (missed if 5 * size < MOST_BYTES else [])

        await course.tell("And", said)
        assert await news(subscription) == (await course.events())[6:]


async def test_whoever_follows_no_more_leaves_nothing_behind(line: Line) -> None:
    event_bus, course = line.listener.event_bus, line.course
    with event_bus.subscribe(course.owner, course.id), event_bus.subscribe(course.owner, course.id):
        await course.tell("Said")
    assert event_bus._listeners == {}
