"""Streams that cannot reach the last event of their turn break: ended properly, they would look complete."""

from asyncio import Event
from collections.abc import AsyncIterator
from typing import Any

import httpx2
import pytest
import pytest_asyncio
from sqlalchemy import delete

from latchkey.application.deletion import delete_conversation
from latchkey.application.dispatcher import Dispatcher
from latchkey.application.turns import subscription
from latchkey.application.turns.finish import TurnOutcome, finish_turn
from latchkey.application.turns.start import StartedTurn
from latchkey.application.turns.subscription import TurnSubscriptions
from latchkey.bootstrap.core import create_core
from latchkey.domain.credentials import Owner, UserId
from latchkey.domain.turn import Usage
from latchkey.infrastructure.database.schema import turn_events
from latchkey.infrastructure.database.sql.session import owned_by_user
from latchkey.interfaces.http.server import response_budget
from latchkey.interfaces.http.server.response_budget import RESPONSES
from tests.fakes.model_script import says
from tests.fakes.model_server import ModelServer
from tests.support.captured_log import CapturedLog, captured_log
from tests.support.event_stream import EventSource, ServerSentEvent, event_names, read_turn, stream_chat, stream_turn
from tests.support.service import ApiUser, Service, model_variables, run_service, settings_for
from tests.turns import started_turn

pytestmark = pytest.mark.asyncio(loop_scope="session")


@pytest_asyncio.fixture(loop_scope="session")
async def service(shared_database_url: str, shared_model: ModelServer) -> AsyncIterator[Service]:
    """A service of its own, so that a test can close its streams."""
    settings = settings_for(shared_database_url, **model_variables(shared_model))
    async with run_service(settings, on_socket=True) as service:
        yield service


@pytest_asyncio.fixture(loop_scope="session")
async def elsewhere(shared_database_url: str) -> AsyncIterator[Dispatcher]:
    """The dispatcher of another process, which does not notify this one of its events."""
    core = create_core(settings_for(shared_database_url))
    yield core.dispatcher
    await core.engine.dispose()


@pytest_asyncio.fixture(loop_scope="session")
async def foreign_turn(elsewhere: Dispatcher, owner: Owner) -> StartedTurn:
    """A turn that runs in the other process."""
    return await started_turn(elsewhere, owner)


@pytest.fixture
def ada(service: Service) -> ApiUser:
    return service.user()


@pytest.fixture
def owner(ada: ApiUser) -> Owner:
    return Owner(UserId(ada.user_id))


@pytest.fixture(autouse=True)
def _frequent_reads(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(subscription, "KEEPALIVE_S", 0.05)


def subscriptions_of(service: Service) -> TurnSubscriptions:
    subscriptions: TurnSubscriptions = service.asgi._app.dependencies["subscriptions"].dependency()
    return subscriptions


async def events_until_break(source: EventSource) -> list[ServerSentEvent]:
    """All events until the body breaks. Raises `EOFError` if it ends with a terminating chunk."""
    events: list[ServerSentEvent] = []
    try:
        while True:
            events.append(await source.next())
    except httpx2.RemoteProtocolError:
        return events


def lines(log: CapturedLog) -> list[dict[str, Any]]:
    """The lines of requests with an event stream, and all others of the level `warning` or above."""
    return [
        line
        for line in log.all_lines()
        if line["level"] in {"warning", "error"} or line.get("route", "").endswith(("/chat", "/events"))
    ]


async def remove_events(database_url: str, user: ApiUser) -> None:
    core = create_core(settings_for(database_url))
    async with core.units.open(Owner(UserId(user.user_id)), "write") as uow:
        await uow.session.execute(delete(turn_events).where(owned_by_user(turn_events)))
        await uow.commit()
    await core.engine.dispose()


async def test_stream_of_foreign_turn_breaks_when_process_closes_and_resumes_elsewhere(
    service: Service, ada: ApiUser, owner: Owner, elsewhere: Dispatcher, foreign_turn: StartedTurn
) -> None:
    turn_id = foreign_turn.turn.id
    with captured_log() as log:
        async with stream_turn(ada, str(turn_id)) as source:
            first = await source.next()
            subscriptions_of(service).close()
            more = await events_until_break(source)
    await elsewhere.call(owner, finish_turn, turn_id, TurnOutcome("completed", Usage(), "Done."))
    async with run_service(service.settings, on_socket=True) as other:
        reader = other.user(ada.user_id)
        rest = await read_turn(reader, str(turn_id), headers={"last-event-id": str(first.seq)})

    assert (first.name, more) == ("turn.started", [])
    assert event_names(rest) == ["message.delta", "turn.completed"]
    assert [(line["status"], line["code"]) for line in lines(log)] == [(200, "unavailable")]


async def test_stream_of_own_turn_has_its_last_event_before_process_closes(
    service: Service, ada: ApiUser, model: ModelServer
) -> None:
    """An agent may answer while the process stops."""
    gate = Event()
    model.script += [says("Half an ").held(gate)]
    async with stream_chat(ada, "Hello") as source:
        started = await source.next()
        gate.set()
        await service.asgi._runner.drain()
        subscriptions_of(service).close()
        events = [started, *await source.rest()]

    assert event_names(events)[-1] == "turn.completed"


async def test_stream_of_own_turn_breaks_when_the_turn_is_handed_over(
    service: Service, ada: ApiUser, model: ModelServer, gate: Event
) -> None:
    """Its client resumes it in another process."""
    model.script += [says("Half an ").held(gate)]
    async with stream_chat(ada, "Hello") as source:
        await source.until("message.delta")
        await service.asgi._runner.aclose()
        subscriptions_of(service).close()
        events = await events_until_break(source)

    assert events == []


async def test_stream_breaks_when_conversation_is_deleted(
    ada: ApiUser, owner: Owner, elsewhere: Dispatcher, foreign_turn: StartedTurn
) -> None:
    """The other process does not notify this one of the event `turn.cancelled`, which is deleted too."""
    with captured_log() as log:
        async with stream_turn(ada, str(foreign_turn.turn.id)) as source:
            await source.next()
            await elsewhere.call(owner, delete_conversation, foreign_turn.turn.conversation_id)
            more = await events_until_break(source)

    assert more == []
    assert [(line["status"], line["code"]) for line in lines(log)] == [(200, "not-found")]


async def test_stream_breaks_when_events_exceed_the_response_budget(
    ada: ApiUser, model: ModelServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The client resumes when the budget has capacity again."""
    monkeypatch.setattr(response_budget, "WAIT_S", 0.05)
    model.script += [says("x" * 200_000)]
    turn_id = (await ada.chat("Hello"))["turn_id"]
    with captured_log() as log, monkeypatch.context() as budget:
        budget.setattr(RESPONSES, "limit", 1)
        async with stream_turn(ada, turn_id) as source:
            events = await events_until_break(source)
    rest = await read_turn(ada, turn_id, params={"after": str(len(events))})

    assert event_names(events + rest)[-1] == "turn.completed"
    assert [event.seq for event in events + rest] == list(range(1, len(events + rest) + 1))
    assert [(line["status"], line["code"]) for line in lines(log)] == [(200, "unavailable")]


async def test_stream_breaks_when_last_events_are_no_longer_stored(
    ada: ApiUser, model: ModelServer, shared_database_url: str
) -> None:
    """An operator may remove old events: the stream neither waits for them nor ends as if it were complete."""
    model.script += [says("Hello.")]
    turn_id = (await ada.chat("Hello"))["turn_id"]
    await remove_events(shared_database_url, ada)
    async with stream_turn(ada, turn_id) as source:
        events = await events_until_break(source)

    assert events == []
