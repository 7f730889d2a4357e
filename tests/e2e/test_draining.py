"""Drain on SIGTERM: no new turns, running turns finish or are handed over, clients are notified."""

import asyncio
import os
import signal
import sqlite3
import time
from asyncio import Event
from collections.abc import AsyncIterator
from pathlib import Path

import httpx2
import pytest

from latchkey.application.dispatcher import Dispatcher
from latchkey.application.turns.finish import TurnOutcome, finish_turn
from latchkey.application.turns.subscription import TurnSubscriptions
from latchkey.domain.credentials import Owner, UserId
from latchkey.domain.turn import Usage
from latchkey.infrastructure.database.event_bus import LocalEventBus
from latchkey.infrastructure.database.sql.engine import create_engine
from latchkey.infrastructure.database.unit_of_work import SqlUnitsOfWork
from latchkey.infrastructure.telemetry.logging import log_call
from tests.e2e.chat_client import Event as TurnEvent
from tests.e2e.chat_client import chat_client, openai_settings, wait_for_drain, wait_for_exit, wait_for_requests
from tests.e2e.claude_service import claude_service, claude_settings, save_artifact_step
from tests.e2e.service_process import BASE_SETTINGS, Environment, Replica, issue_token, running_service
from tests.fakes.model_script import says
from tests.fakes.model_server import ModelServer, model_server
from tests.polling import wait_until
from tests.support.answer_text import answer_text
from tests.support.service import run_service, settings_for
from tests.turns import started_turn

PROMPTLY_S = 4.0


@pytest.fixture
async def model() -> AsyncIterator[ModelServer]:
    async with model_server() as model:
        yield model


@pytest.fixture
def on_sqlite(sqlite_url: str) -> Environment:
    """For tests that do not depend on the database."""
    return {**BASE_SETTINGS, "LATCHKEY_DATABASE_URL": sqlite_url}


@pytest.fixture
def on_postgresql(postgresql_url: str) -> Environment:
    return {**BASE_SETTINGS, "LATCHKEY_DATABASE_URL": postgresql_url}


@pytest.fixture
def ada(home: Path) -> str:
    """A JWT of the user `ada`."""
    return issue_token("ada", home, BASE_SETTINGS)


def status_and_connection(answer: httpx2.Response) -> tuple[int, str]:
    """Status and `Connection` header of a response."""
    return answer.status_code, answer.headers.get("connection", "")


def refusal(answer: httpx2.Response) -> tuple[int, str, bool]:
    return answer.status_code, answer.json()["code"], int(answer.headers["retry-after"]) > 0


def gapless(events: list[TurnEvent]) -> bool:
    return [event.seq for event in events] == list(range(1, len(events) + 1))


async def test_draining_replica_refuses_new_turns_and_serves_other_requests(
    home: Path, on_sqlite: Environment, ada: str, model: ModelServer
) -> None:
    model.script.append(says("Half ", "done.").held(Event()))
    with running_service(home=home, environment=openai_settings(model, on_sqlite)) as replica:
        async with chat_client(replica, ada) as client:
            pending = asyncio.create_task(client.send())
            await wait_for_requests(model)
            turn = await client.only_turn()
            replica.process.terminate()
            await wait_for_drain(replica)

            ready = await client.client.get("/health/ready")
            refused = [await client.send(), await client.send(headers={"accept": "text/event-stream"})]
            live = await client.client.get("/health/live")
            task = await client.request("POST", "tasks", json={"title": "Buy milk"})
            seen = await client.request("GET", f"turns/{turn['id']}")
            following = asyncio.create_task(client.follow_turn(turn["id"]))
            conversations = await client.items("conversations")
            still_running = replica.process.exitcode
            cancelled = await client.request("POST", f"turns/{turn['id']}/cancel")
            events, answer = await following, await pending
            code = await wait_for_exit(replica)

    assert [refusal(one) for one in [ready, *refused]] == [(503, "draining", True)] * 3
    assert [status_and_connection(one) for one in (ready, *refused)] == [(503, "close")] * 3
    assert [status_and_connection(one) for one in (live, seen, cancelled, task)] == [(200, "close")] * 3 + [
        (201, "close")
    ]
    assert (seen.json()["status"], cancelled.json()["status"]) == ("running", "cancelled")
    assert len(conversations) == 1
    assert (events[-1].name, gapless(events)) == ("turn.cancelled", True)
    assert (answer.status_code, answer.json()["code"]) == (409, "turn-cancelled")
    assert (still_running, code) == (None, 0)


async def test_drain_closes_connection_after_pending_response(
    home: Path, on_sqlite: Environment, ada: str, model: ModelServer
) -> None:
    """Otherwise the next request on that connection would fail."""
    release = Event()
    model.script.append(says("Done.").held(release))
    with running_service(home=home, environment=openai_settings(model, on_sqlite)) as replica:
        async with chat_client(replica, ada) as client:
            pending = asyncio.create_task(client.send())
            await wait_for_requests(model)
            replica.process.terminate()
            await wait_for_drain(replica)
            release.set()

            assert status_and_connection(await pending) == (200, "close")


async def test_drain_waits_for_running_turns_then_exits(
    home: Path, configured: Environment, ada: str, model: ModelServer
) -> None:
    """The client of the turn receives the response, and the subscriber receives the last event."""
    release = Event()
    model.script += [says("All ", "done.").held(release)] * 2
    with running_service(home=home, environment=openai_settings(model, configured)) as replica:
        async with chat_client(replica, ada) as client:
            pending = asyncio.create_task(client.send())
            following = asyncio.create_task(client.send_streaming())
            await wait_for_requests(model, 2)
            replica.process.terminate()
            await wait_for_drain(replica)
            release.set()
            released = time.monotonic()
            answer, events = await pending, await following
            code = await wait_for_exit(replica)
            took = time.monotonic() - released

    assert (answer.status_code, answer.json()["response"]) == (200, "All done.")
    assert (events[-1].name, events[-1].data["response"], gapless(events)) == ("turn.completed", "All done.", True)
    assert (code, took < PROMPTLY_S) == (0, True)


async def test_drain_timeout_hands_running_turns_over(
    home: Path, configured: Environment, ada: str, model: ModelServer
) -> None:
    """Without another replica they go on when the service is started again and their clients come back."""
    model.script += [*[says("Half ", "done.").held(Event())] * 2, says("Done."), says("Done.")]
    settings = openai_settings(model, configured, LATCHKEY_DRAIN_S="1", LATCHKEY_TURN_LEASE_S="600")
    key = {"idempotency-key": "k"}
    events: list[TurnEvent] = []
    with running_service(home=home, environment=settings) as replica:
        async with chat_client(replica, ada) as client:
            pending = asyncio.create_task(client.send(headers=key))
            following = asyncio.create_task(client.send_streaming(into=events))
            await wait_for_requests(model, 2)
            await wait_until(lambda: has_text(events, "Half done."))
            started_at = time.monotonic()
            replica.process.terminate()
            answer = await pending
            with pytest.raises(httpx2.RemoteProtocolError, match="incomplete chunked read"):
                await following
            code = await wait_for_exit(replica)
            took = time.monotonic() - started_at
    with running_service(home=home, environment=settings) as again:
        async with chat_client(again, ada) as client:
            rest = await client.follow_turn(turn_of(events), events[-1].seq)
            repeated = await client.send(headers=key)
            first = await client.follow_turn(answer.json()["turn_id"])
            replayed = await client.send(headers=key)

    assert refusal(answer) == (503, "draining", True)
    assert [event.name for event in rest] == ["message.withdrawn", "turn.resumed", "message.delta", "turn.completed"]
    assert (rest[0].data["length"], rest[1].data["reason"], rest[-1].data["response"]) == (0, "handover", "Done.")
    assert gapless([*events, *rest])
    assert repeated.status_code in {200, 409}
    assert [event.name for event in first if event.name.startswith("turn.")] == [
        "turn.started",
        "turn.resumed",
        "turn.completed",
    ]
    assert (replayed.status_code, replayed.json()["response"]) == (200, "Done.")
    assert len(model.requests) == 4
    assert (code, 1 <= took < 1 + PROMPTLY_S) == (0, True)


async def test_drain_timeout_interrupts_running_turns_that_are_never_continued(
    home: Path, configured: Environment, ada: str, model: ModelServer
) -> None:
    model.script += [says("Half ", "done.").held(Event())] * 2
    settings = openai_settings(model, configured, LATCHKEY_DRAIN_S="1", LATCHKEY_TURN_ATTEMPTS="1")
    with running_service(home=home, environment=settings) as replica:
        async with chat_client(replica, ada) as client:
            pending = asyncio.create_task(client.send())
            following = asyncio.create_task(client.send_streaming())
            await wait_for_requests(model, 2)
            replica.process.terminate()
            answer, events = await pending, await following
            code = await wait_for_exit(replica)
    with running_service(home=home, environment=settings) as again:
        async with chat_client(again, ada) as client:
            turns = [
                (await client.request("GET", f"turns/{id}")).json()
                for id in (answer.json()["turn_id"], turn_of(events))
            ]
            stored = await client.follow_turn(turn_of(events))

    assert refusal(answer) == (503, "turn-interrupted", True)
    assert (events[-1].name, gapless(events)) == ("turn.interrupted", True)
    assert [turn["status"] for turn in turns] == ["interrupted"] * 2
    assert stored == events
    assert code == 0


async def test_drain_breaks_stream_of_foreign_turn_and_client_resumes_elsewhere(
    home: Path, on_postgresql: Environment, ada: str, model: ModelServer
) -> None:
    """The stream breaks, because the turn still runs: ended properly, it would look complete."""
    release = Event()
    model.script.append(says("All ", "done.").held(release))
    settings = openai_settings(model, on_postgresql)
    with (
        running_service(home=home, environment=settings) as one,
        running_service(home=home, environment=settings) as other,
    ):
        async with chat_client(one, ada) as here, chat_client(other, ada) as there:
            pending = asyncio.create_task(here.send())
            await wait_for_requests(model)
            turn = await here.only_turn()
            first: list[TurnEvent] = []
            following = asyncio.create_task(there.follow_turn(turn["id"], into=first))
            await wait_until(lambda: has_text(first, "All done."))
            other.process.terminate()
            with pytest.raises(httpx2.RemoteProtocolError, match="incomplete chunked read"):
                await following
            code = await wait_for_exit(other)
            going_on = asyncio.create_task(here.follow_turn(turn["id"], first[-1].seq))
            release.set()
            then, answer = await going_on, await pending

    assert (code, answer.status_code, "Traceback" in other.log_text) == (0, 200, False)
    assert [event.name for event in first] == ["turn.started", *["message.delta"] * (len(first) - 1)]
    assert (then[-1].name, gapless([*first, *then])) == ("turn.completed", True)
    assert answer_text([*first, *then]) == "All done."


async def test_second_sigint_ends_drain_at_once(
    home: Path, on_sqlite: Environment, ada: str, model: ModelServer
) -> None:
    """The client that waits still learns which turn goes on elsewhere; the stream breaks."""
    model.script += [says("Half ", "done.").held(Event())] * 2
    settings = openai_settings(model, on_sqlite, LATCHKEY_DRAIN_S="30")
    with running_service(home=home, environment=settings) as replica:
        async with chat_client(replica, ada) as client:
            pending = asyncio.create_task(client.send())
            following = asyncio.create_task(client.send_streaming())
            await wait_for_requests(model, 2)
            interrupt(replica)
            await wait_for_drain(replica)
            started_at = time.monotonic()
            interrupt(replica)
            answer = await pending
            with pytest.raises(httpx2.RemoteProtocolError, match="incomplete chunked read"):
                await following
            code = await wait_for_exit(replica)
            took = time.monotonic() - started_at

    assert refusal(answer) == (503, "draining", True)
    assert "turn_id" in answer.json()
    assert (code, took < PROMPTLY_S) == (0, True)


async def test_drain_with_two_workers_finishes_all_turns(
    home: Path, on_postgresql: Environment, ada: str, model: ModelServer
) -> None:
    release = Event()
    model.script += [says("All ", "done.").held(release)] * 4
    with running_service("--workers", "2", home=home, environment=openai_settings(model, on_postgresql)) as replica:
        async with chat_client(replica, ada) as client:
            pending = [asyncio.create_task(client.send()) for _ in range(4)]
            await wait_for_requests(model, 4)
            replica.process.terminate()
            await wait_until(lambda: both_drain(replica))
            refused = await client.send()
            release.set()
            answers = await asyncio.gather(*pending)
            code = await wait_for_exit(replica)

    assert refusal(refused) == (503, "draining", True)
    assert [(answer.status_code, answer.json()["response"]) for answer in answers] == [(200, "All done.")] * 4
    assert code == 0


async def test_drain_leaves_no_cli_process_behind(
    home: Path, on_sqlite: Environment, ada: str, model: ModelServer
) -> None:
    model.script += [save_artifact_step(), says("Here ", "it is.").held(Event())]
    settings = {**on_sqlite, **claude_settings(model), "LATCHKEY_DRAIN_S": "1"}
    with claude_service(home, settings, ada) as service:
        pending = asyncio.create_task(service.file_turn())
        await wait_for_requests(model, 2)
        at_work = len(service.processes)
        service.replica.process.terminate()
        answer = await pending
        code = await wait_for_exit(service.replica)
        left = [service.processes, service.workspaces]

    assert at_work > 0
    assert refusal(answer) == (503, "draining", True)
    assert (code, left) == (0, [[], []])


def turn_of(events: list[TurnEvent]) -> str:
    turn_id: str = events[0].data["turn_id"]
    return turn_id


def interrupt(replica: Replica) -> None:
    assert replica.process.pid
    os.kill(replica.process.pid, signal.SIGINT)


async def has_text(events: list[TurnEvent], text: str) -> bool:
    return answer_text(events) == text


async def both_drain(replica: Replica) -> bool:
    return replica.log_text.count("draining") == 2


async def test_drain_slow_subscriber_receives_last_event(sqlite_url: str) -> None:
    """The subscriber has read only an earlier event when the turn and the drain end."""
    engine, event_bus, owner = create_engine(sqlite_url), LocalEventBus(), Owner(UserId("ada"))
    app = Dispatcher(SqlUnitsOfWork(engine, event_bus), log_call)
    turn_id, subscriptions = (await started_turn(app, owner)).turn.id, TurnSubscriptions(app, event_bus)
    stream = subscriptions.follow(owner, turn_id, 0)
    read = [event.name for event in await anext(stream)]
    await app.call(owner, finish_turn, turn_id, TurnOutcome("completed", Usage(), "All done."))
    subscriptions.close()
    read += [event.name async for batch in stream for event in batch]
    await engine.dispose()

    assert read == ["turn.started", "message.delta", "turn.completed"]


async def test_drain_waits_for_turn_that_is_being_started(sqlite_url: str) -> None:
    """Its request was accepted before the drain, so the drain waits for it."""
    async with run_service(settings_for(sqlite_url)) as service:
        ada, runner = service.user(), service.asgi._runner
        await ada.create("tasks", title="Known here")
        holder = await asyncio.to_thread(sqlite3.connect, sqlite_url.partition(":///")[2], check_same_thread=False)
        await asyncio.to_thread(holder.execute, "BEGIN IMMEDIATE")
        pending = asyncio.create_task(ada.post("chat", json={"message": "hello"}))
        await wait_until(lambda: is_waiting(pending))
        draining = asyncio.create_task(runner.drain())
        await asyncio.wait([draining], timeout=0.2)
        has_drained_before = draining.done()
        await asyncio.to_thread(holder.execute, "ROLLBACK")
        holder.close()
        answer = await pending
        await draining

    assert (has_drained_before, answer.status_code) == (False, 200)


async def is_waiting(request: asyncio.Task[httpx2.Response]) -> bool:
    """Whether the request still waits after the event loop has run many times."""
    for _ in range(1000):
        await asyncio.sleep(0)
    return not request.done()
