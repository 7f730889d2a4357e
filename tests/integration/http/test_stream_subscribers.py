"""Several subscribers of one turn: all receive the same events, and a slow one does not delay the others."""

import asyncio
import gc
import socket
import tracemalloc
from asyncio import Event
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from uuid import UUID

import pytest

from latchkey.application.turns import subscription
from latchkey.application.turns.record import EventBatch, append_events
from latchkey.bootstrap.core import create_core
from latchkey.domain.credentials import Owner, UserId
from latchkey.domain.tool_call import ToolRequest
from latchkey.domain.turn import TurnId, Usage
from tests.fakes.model_script import calls, says
from tests.fakes.model_server import ModelServer
from tests.polling import TIMEOUT_S
from tests.support.event_stream import event_names, raw_bytes, read_turn, stream_chat, stream_turn
from tests.support.service import ApiUser, Service

pytestmark = pytest.mark.asyncio(loop_scope="session")


@pytest.fixture
def ada(replicas: tuple[Service, Service]) -> ApiUser:
    return replicas[0].user()


@pytest.mark.usefixtures("without_polling")
async def test_stream_concurrent_subscribers_on_all_replicas_receive_the_same_events(
    replicas: tuple[Service, Service], ada: ApiUser, model: ModelServer
) -> None:
    release = Event()
    model.script += [calls(("list_tasks", "{}"), saying=("Hm. ",)).held(release), says("Nothing ", "there.")]
    readers = [replica.user(ada.user_id) for replica in replicas for _ in range(5)]
    async with stream_chat(ada, "What is there?") as source:
        so_far = await source.take(2)
        subscribers = [asyncio.create_task(read_turn(reader, so_far[0].data["turn_id"])) for reader in readers]
        release.set()
        uncut = so_far + await source.rest()

    assert {raw_bytes(await subscriber) for subscriber in subscribers} == {raw_bytes(uncut)}


@pytest.mark.usefixtures("without_polling")
async def test_stream_event_without_notification_is_delivered_before_later_events(
    replicas: tuple[Service, Service], ada: ApiUser, model: ModelServer
) -> None:
    """As after a lost connection during the commit: the event is stored, but not published."""
    release, elsewhere = Event(), replicas[1].user(ada.user_id)
    model.script += [says("Hm.").held(release)]
    async with stream_chat(ada, "What is there?") as source:
        so_far = await source.take(2)
        turn_id = so_far[0].data["turn_id"]
        async with stream_turn(elsewhere, turn_id) as other:
            so_far_there = await other.take(2)
            await store_without_publishing(replicas[0], ada, turn_id)
            release.set()
            there = so_far_there + await other.rest()
        here = so_far + await source.rest()

    assert [event.seq for event in here] == [1, 2, 3, 4]
    assert event_names(here)[2:] == ["tool_call.started", "turn.completed"]
    assert there == here


async def test_stream_heartbeat_comment_is_sent_when_there_is_no_event(
    ada: ApiUser, model: ModelServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Documented: within 15 seconds. The test uses a shorter interval."""
    assert subscription.KEEPALIVE_S <= 15
    monkeypatch.setattr(subscription, "KEEPALIVE_S", 0.05)
    release = Event()
    model.script += [says("Hel").held(release)]
    async with stream_chat(ada, "Hello") as source:
        before = await source.take(2)
        await source.comment()
        await source.comment()
        release.set()
        after = await source.rest()

    assert event_names(before + after) == ["turn.started", "message.delta", "turn.completed"]
    assert [event.seq for event in before + after] == [1, 2, 3]


async def test_stream_subscribers_that_do_not_read_delay_nobody_and_use_bounded_memory(
    ada: ApiUser, model: ModelServer
) -> None:
    """The events exceed the socket buffers; memory for all subscribers together stays below half of their size."""
    release = Event()
    for _ in range(2):
        await ada.create("tasks", title="long", description="x" * 10_000)
    model.script += [calls(*[("list_tasks", "{}")] * 400, saying=("Hm.",)).held(release), says("That was all.")]
    async with stream_chat(ada, "What is there?") as source:
        started = await source.next()
        with clients_that_do_not_read(ada, started.data["turn_id"]), traced() as growth:
            release.set()
            streamed_bytes = 0
            while not (event := await source.next()).is_final:
                streamed_bytes += len(event.raw)
            model.requests.clear()
            grown = growth()

    assert event.data["response"] == "Hm.\n\nThat was all."
    assert streamed_bytes > 8_000_000
    assert grown < streamed_bytes / 2


async def store_without_publishing(service: Service, user: ApiUser, turn_id: str) -> None:
    """Store a tool call of the turn without publishing it on the event bus."""
    core = create_core(service.settings)
    batch = EventBatch(len("Hm."), "", Usage(), ToolRequest.create("theirs", "list_tasks", {}))
    await core.dispatcher.call(Owner(UserId(user.user_id)), append_events, TurnId(UUID(turn_id)), batch)
    await core.engine.dispose()


@contextmanager
def clients_that_do_not_read(user: ApiUser, turn_id: str) -> Iterator[None]:
    """Three clients that request the events of a turn and read nothing."""
    url = user.client.base_url
    head = [f"GET {user.path(f'turns/{turn_id}/events')} HTTP/1.1", f"Host: {url.host}"]
    request = "\r\n".join([*head, f"Authorization: Bearer {user.token}", "", ""]).encode()
    with ExitStack() as open_sockets:
        for _ in range(3):
            subscriber = open_sockets.enter_context(socket.socket())
            subscriber.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            subscriber.connect((url.host, url.port))
            subscriber.sendall(request)
        yield


@contextmanager
def traced() -> Iterator[Callable[[], int]]:
    """Return the growth of memory in bytes since the start."""
    tracemalloc.start()
    try:
        gc.collect()
        before, _ = tracemalloc.get_traced_memory()

        def growth() -> int:
            gc.collect()
            return tracemalloc.get_traced_memory()[0] - before

        yield growth
    finally:
        tracemalloc.stop()


async def test_stream_limit_holds_for_concurrent_requests(
    replicas: tuple[Service, Service], ada: ApiUser, model: ModelServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whether they resume a stream or send a message; a refused message starts no turn."""
    monkeypatch.setattr(subscription, "MAX_SUBSCRIPTIONS_PER_USER", 5)
    release = Event()
    model.script += [says("Hm.").held(release)]
    async with stream_chat(ada, "What is there?") as source:
        (first,) = await source.take(1)
        path = f"turns/{first.data['turn_id']}/events"
        readers = [asyncio.create_task(ada.get(path)) for _ in range(20)]
        await asyncio.wait(readers, timeout=TIMEOUT_S, return_when=asyncio.FIRST_COMPLETED)
        refused = await ada.post("chat", json={"message": "Hello"}, headers={"accept": "text/event-stream"})
        release.set()
        await source.rest()
    statuses = [(await reader).status_code for reader in readers]

    assert (statuses.count(200), statuses.count(429)) == (4, 16)
    assert (refused.status_code, refused.json()["code"]) == (429, "exhausted")
    assert len(await ada.list_items("conversations")) == 1
