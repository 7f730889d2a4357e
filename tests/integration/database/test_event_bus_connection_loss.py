"""The PostgreSQL event bus when its connection is lost, frozen, or leads to a pooler."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack

import pytest
from sqlalchemy import make_url

from latchkey.application.turns.subscription import TurnSubscriptions
from latchkey.domain.credentials import Owner, UserId
from latchkey.domain.turn_event import TurnEvent
from latchkey.infrastructure.database import event_bus
from latchkey.infrastructure.database.event_bus import PostgreSQLEventBus
from tests.contract.database.event_bus_pair import BusPair, Process, next_events, run_process, wait_listening
from tests.integration.database.conftest import run_sql_async
from tests.integration.database.tcp_proxy import proxy_to
from tests.polling import TIMEOUT_S

ME = Owner(UserId("me"))
KILL_LISTENERS = """
SELECT pg_terminate_backend(pid) FROM pg_stat_activity
WHERE datname = current_database() AND pid <> pg_backend_pid() AND query ~ 'pg_notify|LISTEN'
"""


@pytest.fixture(autouse=True)
def short_timeouts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Detect lost connections and reconnect sooner than in production."""
    for name, value in {"_KEEPALIVE_S": 0.2, "_CONNECT_TIMEOUT_S": 1.0, "_RECONNECT_S": 0.1}.items():
        monkeypatch.setattr(event_bus, name, value)


@pytest.fixture
async def pair(postgresql_url: str) -> AsyncIterator[BusPair]:
    """Events go from one process to another."""
    async with run_process(postgresql_url) as publisher, run_process(postgresql_url) as subscriber:
        pair = BusPair(publisher, subscriber, ME)
        await pair.start()
        yield pair


async def test_lost_listener_connection_wakes_subscribers_and_reconnects(pair: BusPair, superuser_url: str) -> None:
    """Woken subscribers read what was committed in the meantime."""
    running_turn = pair.running_turn
    for said in range(3):
        with pair.subscriber.event_bus.subscribe(running_turn.owner, running_turn.id) as subscription:
            waiting = asyncio.create_task(next_events(subscription))
            assert len(await run_sql_async(superuser_url, KILL_LISTENERS)) == 2
            assert await waiting == []
            for process in (pair.publisher, pair.subscriber):
                await wait_listening(process.event_bus)
        with pair.subscriber.event_bus.subscribe(running_turn.owner, running_turn.id) as subscription:
            waiting = asyncio.create_task(next_events(subscription))
            await pair.flush()
            assert not waiting.done()
            await running_turn.append_text("x", said)
            assert await waiting == []


async def test_pending_notifications_are_sent_after_reconnect(postgresql_url: str) -> None:
    """A subscriber with a long timeout is woken by them."""
    port = make_url(postgresql_url).port or 5432
    async with proxy_to(port) as proxy:
        through_it = make_url(postgresql_url).set(port=proxy.port).render_as_string(hide_password=False)
        async with run_process(postgresql_url, through_it) as publisher, run_process(postgresql_url) as subscriber:
            pair = BusPair(publisher, subscriber, ME)
            await pair.start()
            await pair.flush()
            with subscriber.event_bus.subscribe(ME, pair.running_turn.id) as subscription:
                waiting = asyncio.create_task(next_events(subscription))
                proxy.freeze()
                await pair.running_turn.append_text("Said")
                await wait_listening(publisher.event_bus, is_listening=False)
                await proxy.disconnect()
                assert not waiting.done()
                await proxy.restore()
                assert await waiting == []
            await wait_listening(publisher.event_bus)


async def test_listener_connection_lost_for_long_wakes_subscribers(postgresql_url: str) -> None:
    """At once, before the next connection is open."""
    async with proxy_to(make_url(postgresql_url).port or 5432) as proxy:
        through_it = make_url(postgresql_url).set(port=proxy.port).render_as_string(hide_password=False)
        async with run_process(postgresql_url, through_it) as process:
            pair = BusPair(process, process, ME)
            await pair.start()
            with process.event_bus.subscribe(ME, pair.running_turn.id) as subscription:
                waiting = asyncio.create_task(next_events(subscription))
                await asyncio.sleep(0)
                await proxy.disconnect()
                assert await waiting == []
            await wait_listening(process.event_bus, is_listening=False)


async def test_pending_notifications_are_sent_at_shutdown(postgresql_url: str) -> None:
    """Such as those of a turn that ends at shutdown."""
    async with run_process(postgresql_url) as subscriber, AsyncExitStack() as ending:
        publisher = await ending.enter_async_context(run_process(postgresql_url))
        pair = BusPair(publisher, subscriber, ME)
        await pair.start()
        await pair.flush()
        with subscriber.event_bus.subscribe(ME, pair.running_turn.id) as subscription:
            waiting = asyncio.create_task(next_events(subscription))
            await pair.running_turn.finish("", "interrupted")
            await ending.aclose()
            assert await waiting == []


async def test_subscribers_poll_while_listener_is_disconnected(
    postgresql_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Events of their own process still arrive at once."""
    # A failed reconnect wakes subscribers too, and would hide whether they poll.
    monkeypatch.setattr(event_bus, "_RECONNECT_S", 10 * TIMEOUT_S)
    async with run_process(postgresql_url, "postgresql://nobody@127.0.0.1:1/nothing", is_listening=False) as process:
        pair = BusPair(process, process, ME)
        await pair.start()
        with process.event_bus.subscribe(ME, pair.running_turn.id) as subscription:
            await pair.running_turn.append_text("Said")
            assert await next_events(subscription) == (await pair.running_turn.events())[1:]
            assert await next_events(subscription) == []


async def test_subscribers_poll_behind_transaction_pooler(pgbouncer_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A turn can be followed from another process to its end, without notifications."""
    # Its own statements would bring some along, by whichever of the pooler's connections they take.
    monkeypatch.setattr(event_bus, "_KEEPALIVE_S", 10 * TIMEOUT_S)
    url = f"{pgbouncer_url}?statement_cache_size=0"
    async with run_process(url, is_listening=False) as publisher, run_process(url, is_listening=False) as subscriber:
        pair = BusPair(publisher, subscriber, ME)
        await pair.running_turn.start()
        with subscriber.event_bus.subscribe(ME, pair.running_turn.id) as subscription:
            for _ in range(3):  # once or twice because it has just found out that it is deaf
                assert await next_events(subscription) == []
        watched = asyncio.create_task(subscriptions(subscriber, pair))
        await pair.running_turn.append_text("Let me")
        await pair.running_turn.add()
        await pair.running_turn.finish("Let me see.")

        assert await watched == await pair.running_turn.events()
        for process in (publisher, subscriber):
            assert isinstance(process.event_bus, PostgreSQLEventBus)
            assert not process.event_bus._is_listening


async def subscriptions(process: Process, pair: BusPair) -> list[TurnEvent]:
    seen: list[TurnEvent] = []
    async with asyncio.timeout(TIMEOUT_S):
        async for events in TurnSubscriptions(process.dispatcher, process.event_bus).follow(
            ME, pair.running_turn.id, 0
        ):
            seen += events
    return seen
