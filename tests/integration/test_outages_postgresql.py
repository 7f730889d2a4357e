"""Outages of PostgreSQL: requests are 503, turns stay consistent, and no restart is needed."""

import asyncio
import os
import signal
import time
from asyncio import Event, StreamReader, StreamWriter
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from pathlib import Path

import asyncpg
import httpx2
import pytest
from sqlalchemy import make_url

from latchkey.domain.credentials import Owner, UserId
from latchkey.domain.errors import Unavailable
from latchkey.domain.page import Window
from latchkey.infrastructure.database.migrations import upgrade
from latchkey.infrastructure.database.sql import engine as engines
from latchkey.infrastructure.database.sql import postgresql
from latchkey.infrastructure.database.sql.engine import create_engine
from latchkey.infrastructure.database.sql.postgresql import lock_key
from latchkey.infrastructure.database.unit_of_work import SqlUnitsOfWork
from latchkey.testing.postgresql import PostgreSQL, _throw_away
from latchkey.testing.processes import unprivileged_account
from tests.builders import a_task
from tests.fakes.model_script import calls, says
from tests.fakes.model_server import ModelServer, model_server
from tests.integration.database.tcp_proxy import CHUNK, TcpProxy
from tests.integration.outage import (
    MILK,
    TwoSteps,
    consistent_turn,
    events_of,
    is_unavailable,
    serve_with_model,
    tasks_added_by,
    tasks_of,
    url_through,
    wait_until_writable,
)
from tests.polling import TIMEOUT_S, wait_until
from tests.support.service import ApiUser

KILL = """
SELECT pg_terminate_backend(pid) FROM pg_stat_activity
WHERE datname = current_database() AND pid <> pg_backend_pid() AND backend_type = 'client backend'
"""

OTHERS = KILL.replace("pg_terminate_backend(pid)", "pid")


class CommitInterrupter(TcpProxy):
    """Disconnects right after a COMMIT: the server commits, and the client gets no response."""

    def __init__(self, server_port: int) -> None:
        super().__init__(server_port)
        self._commits_left = 0
        self.interruptions = 0

    def interrupt_after(self, commits: int) -> None:
        """Interrupt that commit, counted from now on."""
        self._commits_left = commits

    async def _forward(self, source: StreamReader, sink: StreamWriter, *, from_server: bool) -> None:
        if from_server:
            await super()._forward(source, sink, from_server=True)
            return
        try:
            while chunk := await source.read(CHUNK):
                await self._flowing.wait()
                if b"COMMIT\0" in chunk and self._is_to_interrupt():
                    self.interruptions += 1
                    for writer in self._writers:
                        if writer is not sink:
                            writer.transport.abort()
                    self._writers = {sink}
                sink.write(chunk)
                await sink.drain()
        except ConnectionError:
            return
        finally:
            sink.close()

    def _is_to_interrupt(self) -> bool:
        self._commits_left -= 1
        return self._commits_left == 0


async def is_recorded(url: str, text: str) -> bool:
    """Return whether this much of the answer is stored in the only turn."""
    connection = await asyncpg.connect(url)
    answer_length = await connection.fetchval("SELECT max(told) FROM turns")
    await connection.close()
    return bool(answer_length == len(text))


@asynccontextmanager
async def commit_interrupter_to(url: str) -> AsyncIterator[CommitInterrupter]:
    proxy = CommitInterrupter(make_url(url).port or 5432)
    await proxy.restore()
    try:
        yield proxy
    finally:
        await proxy.restore()
        await proxy.disconnect()


@pytest.fixture
async def model() -> AsyncIterator[ModelServer]:
    async with model_server() as model:
        yield model


@pytest.fixture
def short_timeouts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Eight connections, and timeouts of one second for a connection and for a statement."""
    for name, value in {"POOL_SIZE": 8, "POOL_TIMEOUT_S": 1, "STATEMENT_TIMEOUT_S": 1}.items():
        monkeypatch.setattr(engines, name, value)
    for name, value in {"POOL_SIZE": 8, "POOL_TIMEOUT_S": 1}.items():
        monkeypatch.setattr(postgresql, name, value)


@pytest.fixture
def own_server(tmp_path: Path) -> Iterator[PostgreSQL]:
    """A server of this test alone, so that it may crash."""
    with _throw_away(tmp_path / "postgresql.log") as server:
        yield server


async def execute(url: str, statement: str) -> None:
    connection = await asyncpg.connect(url)
    await connection.execute(statement)
    await connection.close()


async def crash(server: PostgreSQL) -> None:
    """Crash the server: it closes all connections, recovers and accepts new ones."""
    connection = await asyncpg.connect(server.superuser_url("postgres"))
    os.kill(await connection.fetchval("SELECT pg_backend_pid()"), signal.SIGKILL)
    connection.terminate()


async def ask_everything(person: ApiUser) -> list[httpx2.Response]:
    said = person.post("chat", json={"message": "Hello?"})
    written = person.post("tasks", json={"title": "Buy oats"})
    return list(await asyncio.gather(person.get("tasks"), written, person.get("conversations"), said))


@pytest.mark.skipif(
    unprivileged_account().user is None and os.environ.get("TEST_DATABASE_URL") is not None,
    reason="the server that was given is somebody else's",
)
async def test_server_crash_during_turn_loses_nothing(own_server: PostgreSQL, model: ModelServer) -> None:
    """Subscribers on another replica lose nothing either."""
    url = own_server.superuser_url("postgres")
    await execute(url, "ALTER DATABASE postgres SET synchronous_commit = on")  # what is committed outlives the crash
    await asyncio.to_thread(upgrade, url)
    rest = Event()
    model.script += [calls(MILK), says("All ", "done.").held(rest)]
    async with serve_with_model(url, model) as one, serve_with_model(url, model) as other:
        ada = one.user("ada")
        turn = asyncio.create_task(ada.post("chat", json={"message": "milk"}))
        await model.wait_for_requests(2)
        (conversation,) = await ada.list_items("conversations")
        (found,) = await ada.list_items(f"conversations/{conversation['id']}/turns")
        subscription = asyncio.create_task(events_of(other.user("ada"), found["id"]))
        await crash(own_server)
        during = [await ada.post("tasks", json={"title": "Buy oats"}) for _ in range(3)]
        await wait_until_writable(ada)
        rest.set()
        answer, followed = await turn, await subscription
        ended = await consistent_turn(ada, found["id"])
        stored, kept = await events_of(ada, found["id"]), await tasks_of(ada)

    assert [one for one in during if one.status_code != 201 and not is_unavailable(one)] == []
    assert (answer.status_code, answer.json()["response"], ended["status"]) == (200, "All done.", "completed")
    assert followed == stored
    assert len(kept) == 1
    assert kept == tasks_added_by(ended)


async def test_connections_killed_at_any_moment_keep_turns_consistent(
    postgresql_url: str, postgresql_server: PostgreSQL, model: ModelServer
) -> None:
    model.script = TwoSteps(model, calls(MILK, saying=("Well, ",)), says("all ", "done."))
    superuser_url = postgresql_server.superuser_url(postgresql_url.rpartition("/")[2])
    async with serve_with_model(postgresql_url, model, LATCHKEY_TURN_LEASE_S="4") as service:
        people = [service.user() for _ in range(6)]
        answers: list[httpx2.Response] = []

        async def talk(person: ApiUser) -> None:
            for _ in range(5):
                answers.append(await person.post("chat", json={"message": "milk"}))
                answers.extend(await asyncio.gather(person.get("tasks"), person.post("tasks", json={"title": "Oats"})))

        talking = asyncio.gather(*(talk(person) for person in people))
        killer = await asyncpg.connect(superuser_url)
        killed = 0
        while not talking.done():
            killed += len(await killer.fetch(KILL))
            await asyncio.wait([talking], timeout=0.1)
        await killer.close()
        await talking
        ended = {
            person.user_id: [await consistent_turn(person, id) for id in await turns_of(person)] for person in people
        }
        kept = {person.user_id: await tasks_of(person) for person in people}

    assert [one.text for one in answers if one.status_code not in {200, 201, 409, 503}] == []
    assert [one.text for one in answers if one.status_code == 503 and not is_told_when(one)] == []
    assert killed > 0
    assert [one for one in answers if one.status_code == 200]
    assert {user: tasks_added_by(*turns) for user, turns in ended.items()} == kept


def is_told_when(refused: httpx2.Response) -> bool:
    """Requests are 503. A turn that lost its tool calls has ended and is not resumed."""
    return is_unavailable(refused) or refused.json()["code"] == "tools-unavailable"


async def turns_of(person: ApiUser) -> list[str]:
    listings = [f"conversations/{one['id']}/turns" for one in await person.list_items("conversations", limit=200)]
    return [turn["id"] for listing in listings for turn in await person.list_items(listing)]


async def test_frozen_network_is_unavailable_after_timeout(
    postgresql_url: str, model: ModelServer, short_timeouts: None
) -> None:
    """Also with a pool full of dead connections."""
    rest = Event()
    model.script += [calls(MILK), says("All ", "done.").held(rest)]
    async with (
        commit_interrupter_to(postgresql_url) as proxy,
        serve_with_model(url_through(proxy, postgresql_url), model) as service,
    ):
        ada = service.user()
        turn = asyncio.create_task(ada.post("chat", json={"message": "milk"}))
        await model.wait_for_requests(2)
        await asyncio.gather(*(service.user().get("tasks") for _ in range(20)))
        proxy.freeze()
        begun = time.monotonic()
        frozen = [await service.user().get("tasks")]
        took = time.monotonic() - begun
        frozen += await ask_everything(service.user())
        rest.set()
        await proxy.restore()
        answer = await turn
        ended = await consistent_turn(ada, answer.json()["turn_id"])
        await wait_until_writable(ada)
        kept = await tasks_of(ada)

    assert [is_unavailable(one) for one in frozen] == [True] * 5
    assert took < 5
    assert (answer.status_code, ended["status"]) == (200, "completed")
    assert kept == tasks_added_by(ended)


async def test_server_without_free_connections_is_unavailable(
    postgresql_url: str, postgresql_server: PostgreSQL, model: ModelServer, short_timeouts: None
) -> None:
    superuser_url = postgresql_server.superuser_url(postgresql_url.rpartition("/")[2])
    async with serve_with_model(postgresql_url, model) as service:
        ada = service.user()
        holder = await asyncpg.connect(superuser_url)
        await holder.execute("BEGIN; LOCK TABLE tasks IN ACCESS EXCLUSIVE MODE")
        blocked = [asyncio.create_task(ada.get("tasks")) for _ in range(30)]
        refused = await asyncio.gather(*blocked)
        await holder.execute("ROLLBACK")
        await holder.close()
        await wait_until_writable(ada)

    assert [is_unavailable(one) for one in refused] == [True] * 30


async def test_held_user_lock_is_unavailable_after_timeout_for_that_user_only(
    postgresql_url: str, model: ModelServer, short_timeouts: None
) -> None:
    """As a hanging replica would hold it. A lock wait is not a lost connection, so it is not retried."""
    async with serve_with_model(postgresql_url, model) as service:
        ada, bob = service.user(), service.user()
        model.script += [says("Hello, Bob."), says("Hello, Ada.")]
        holder = await asyncpg.connect(postgresql_url)
        secret = await holder.fetchval("SELECT system_identifier FROM pg_control_system()")
        await holder.execute("SELECT pg_advisory_lock($1)", lock_key(UserId(ada.user_id), str(secret).encode()))
        begun = time.monotonic()
        refused = await ada.post("chat", json={"message": "Hello?"})
        took = time.monotonic() - begun
        answered = await bob.chat("Hello?")
        await holder.close()
        back = await ada.chat("Hello?")

    assert is_unavailable(refused)
    assert took < 5
    assert (answered["response"], back["response"]) == ("Hello, Bob.", "Hello, Ada.")


async def test_process_frozen_in_transaction_loses_it(postgresql_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(postgresql, "IDLE_IN_TRANSACTION_TIMEOUT", "100ms")
    engine, ada = create_engine(postgresql_url), Owner(UserId("ada"))
    units = SqlUnitsOfWork(engine)
    with pytest.raises(Unavailable), ThreadPoolExecutor() as others:  # noqa: PT012 # the unit of work is one block
        async with units.open(ada, "write") as uow:
            await uow.tasks.add(a_task())
            # Nothing of ours runs meanwhile, as when a process is stopped.
            others.submit(asyncio.run, others_are_gone(postgresql_url)).result()
            await uow.commit()
    async with units.open(ada, "read") as uow:
        kept = (await uow.tasks.page(None, Window())).items
    await engine.dispose()

    assert kept == []


async def others_are_gone(url: str) -> None:
    """Wait until there is no other connection."""
    connection = await asyncpg.connect(url)

    async def are_gone() -> bool:
        return not await connection.fetch(OTHERS)

    await wait_until(are_gone)
    await connection.close()


@pytest.mark.parametrize("commit", range(1, 6))
async def test_turn_with_interrupted_commit_is_consistent_and_runs_once(
    postgresql_url: str, model: ModelServer, commit: int
) -> None:
    """Whichever commit is interrupted. The client sends its message again with its idempotency key."""
    model.script = TwoSteps(model, calls(MILK, saying=("Well, ",)), says("all ", "done."))
    lease = {"LATCHKEY_TURN_LEASE_S": "2"}
    async with (
        commit_interrupter_to(postgresql_url) as proxy,
        serve_with_model(url_through(proxy, postgresql_url), model, **lease) as service,
    ):
        ada = service.user()
        proxy.interrupt_after(commit)
        answer = await insistently(ada)
        (turn_id,) = await turns_of(ada)
        ended, kept = await consistent_turn(ada, turn_id), await tasks_of(ada)

    assert ended["status"] in {"completed", "failed", "interrupted"}
    assert (answer.status_code == 200) == (ended["status"] == "completed"), answer.text
    assert kept == tasks_added_by(ended)
    assert proxy.interruptions == 1


async def insistently(person: ApiUser) -> httpx2.Response:
    """Send the message again under its idempotency key until there is a final response."""
    async with asyncio.timeout(TIMEOUT_S):
        while True:
            answer = await person.post("chat", json={"message": "milk"}, headers={"idempotency-key": "one"})
            if answer.status_code == 200 or answer.json()["code"] not in {"unavailable", "turn-in-progress"}:
                return answer
            await asyncio.sleep(0.1)


async def test_turn_finish_with_lost_commit_response_is_stored_once(postgresql_url: str, model: ModelServer) -> None:
    """The waiting client gets the stored answer."""
    rest = Event()
    model.script.append(says("All done.").held(rest))
    async with (
        commit_interrupter_to(postgresql_url) as proxy,
        serve_with_model(url_through(proxy, postgresql_url), model) as service,
    ):
        ada = service.user()
        turn = asyncio.create_task(ada.post("chat", json={"message": "milk"}))
        await model.wait_for_requests(1)
        (conversation,) = await ada.list_items("conversations")
        (found,) = await ada.list_items(f"conversations/{conversation['id']}/turns")
        await wait_until(lambda: is_recorded(postgresql_url, "All done."))
        proxy.interrupt_after(1)
        rest.set()
        answer = await turn
        ended = await consistent_turn(ada, found["id"])

    assert (answer.status_code, answer.json()["response"]) == (200, "All done.")
    assert (ended["status"], proxy.interruptions) == ("completed", 1)
