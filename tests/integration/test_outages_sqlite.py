"""SQLite cannot be written: requests are 503, and nothing is stored in part."""

import asyncio
import shutil
import sqlite3
import time
from asyncio import Event
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, closing
from pathlib import Path
from typing import Any

import pytest

from latchkey.domain import concurrency
from latchkey.infrastructure.database.sql import sqlite
from latchkey.infrastructure.database.sql.driver import Write
from latchkey.infrastructure.database.sql.sqlite import file_id
from tests.fakes.model_script import calls, says
from tests.fakes.model_server import ModelServer, model_server
from tests.integration.outage import (
    MILK,
    consistent_turn,
    is_unavailable,
    serve_with_model,
    tasks_added_by,
    tasks_of,
    wait_until_writable,
)
from tests.support.captured_log import captured_log
from tests.support.service import ApiUser

Trouble = Callable[[], None]
AMPLE = 1_000_000


@pytest.fixture
async def model() -> AsyncIterator[ModelServer]:
    async with model_server() as model:
        yield model


class Troubles:
    """Faults of the disk, injected into every connection before each batch of statements."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._pragmas: list[str] = []
        with closing(sqlite3.connect(path)) as file:
            file.execute("VACUUM")  # what is free inside the file needs no disk

    def fill_the_disk(self) -> None:
        """Allow no more pages than are in use."""
        with closing(sqlite3.connect(self._path)) as file:
            (pages,) = file.execute("PRAGMA page_count").fetchone()
        self._pragmas = [f"max_page_count={pages}"]

    def forbid_writing(self) -> None:
        """Behave as if the file had become read-only."""
        self._pragmas = ["query_only=ON"]

    def end(self) -> None:
        self._pragmas = [f"max_page_count={AMPLE}", "query_only=OFF"]

    def inject(self, connection: sqlite3.Connection) -> None:
        for pragma in self._pragmas:
            connection.execute(f"PRAGMA {pragma}").close()


@pytest.fixture
def path(sqlite_url: str) -> str:
    return sqlite_url.partition(":///")[2]


@pytest.fixture
def troubles(path: str, monkeypatch: pytest.MonkeyPatch) -> Troubles:
    troubles, execute_batch = Troubles(path), sqlite._execute_batch

    def with_faults(statements: list[Write], connection: sqlite3.Connection) -> Any:
        troubles.inject(connection)
        return execute_batch(statements, connection)

    monkeypatch.setattr(sqlite, "_execute_batch", with_faults)
    return troubles


@asynccontextmanager
async def locked(path: str) -> AsyncIterator[None]:
    """Lock the file for writing, as another process would."""
    with closing(sqlite3.connect(path, isolation_level=None, check_same_thread=False)) as file:
        await asyncio.to_thread(file.execute, "BEGIN IMMEDIATE")
        yield
        file.execute("ROLLBACK")


@pytest.fixture
def short_timeouts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Wait for the file at most a tenth of a second."""
    monkeypatch.setattr(sqlite, "PRAGMAS", (*sqlite.PRAGMAS, "busy_timeout=100"))


def remove_log_files(path: str) -> None:
    for suffix in ("-wal", "-shm"):
        Path(f"{path}{suffix}").unlink(missing_ok=True)


def write_garbage(path: str, *, in_place: bool) -> None:
    """Replace the content of the file, or the file."""
    with closing(sqlite3.connect(path)) as file:
        file.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    target = path if in_place else f"{path}.garbage"
    Path(target).write_bytes(b"no database " * 20_000)
    Path(target).rename(path)


async def responses_of(ada: ApiUser) -> list[Any]:
    """A read, a write and a turn."""
    return [await ada.get("tasks"), await add(ada), await ada.post("chat", json={"message": "milk"})]


async def test_removed_file_is_unavailable_until_it_is_back(sqlite_url: str, path: str, model: ModelServer) -> None:
    """No write is acknowledged that would be lost with the removed file."""
    async with serve_with_model(sqlite_url, model) as service:
        ada = service.user()
        await add(ada)
        shutil.move(path, f"{path}.away")
        refused = await responses_of(ada)
        created = file_id(path)
        shutil.move(f"{path}.away", path)
        await add(ada)
        tasks = await ada.list_items("tasks")

    assert [is_unavailable(response) for response in refused] == [True] * 3
    assert created is None
    assert len(tasks) == 2


async def test_file_replaced_by_another_database_is_used(sqlite_url: str, path: str, model: ModelServer) -> None:
    """For example by a backup: connections to the replaced file are closed."""
    async with serve_with_model(sqlite_url, model) as service:
        ada = service.user()
        with closing(sqlite3.connect(path)) as file, closing(sqlite3.connect(f"{path}.backup")) as backup:
            file.backup(backup)
        await add(ada)
        remove_log_files(path)
        shutil.move(f"{path}.backup", path)
        before = await ada.list_items("tasks")
        await add(ada)
        after = await ada.list_items("tasks")

    assert (len(before), len(after)) == (0, 1)


@pytest.mark.parametrize("in_place", [True, False], ids=["overwritten", "replaced"])
async def test_damaged_file_is_unavailable_and_the_log_says_why(
    sqlite_url: str, path: str, model: ModelServer, *, in_place: bool
) -> None:
    async with serve_with_model(sqlite_url, model) as service:
        ada = service.user()
        await add(ada)
        write_garbage(path, in_place=in_place)
        with captured_log() as log:
            refused = [*await responses_of(ada), *await responses_of(ada)]

    assert {response.status_code for response in refused} <= {200, 503}
    assert is_unavailable(refused[-1])
    causes = [line.get("cause") for line in log.lines("http_request") if line["status"] == 503]
    assert causes
    assert all("database" in str(cause) for cause in causes)


async def add(ada: ApiUser, size: int = 1) -> Any:
    return await ada.post("tasks", json={"title": "Buy oats", "description": "x" * size})


async def test_locked_file_is_unavailable_to_writers_and_turn_retries(
    sqlite_url: str, path: str, model: ModelServer, short_timeouts: None
) -> None:
    """The turn completes once the file is free: its end is retried while its lease lasts."""
    rest = Event()
    model.script += [calls(MILK), says("All ", "done.").held(rest)]
    async with serve_with_model(sqlite_url, model) as service:
        ada = service.user()
        turn = asyncio.create_task(ada.post("chat", json={"message": "milk"}))
        await model.wait_for_requests(2)
        async with locked(path):
            rest.set()
            refused = await asyncio.gather(*(add(ada) for _ in range(3)), ada.post("chat", json={"message": "Hello?"}))
            read = await ada.get("tasks")
        answer = await turn
        ended = await consistent_turn(ada, answer.json()["turn_id"])
        kept = await tasks_of(ada)

    assert [is_unavailable(one) for one in refused] == [True] * 4
    assert (read.status_code, answer.status_code) == (200, 200)
    assert (ended["status"], answer.json()["response"]) == ("completed", "All done.")
    assert kept == tasks_added_by(ended)


async def test_concurrent_writers_time_out(
    sqlite_url: str, path: str, model: ModelServer, short_timeouts: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Their waiting times do not add up."""
    monkeypatch.setattr(concurrency, "QUEUE_S", 0.5)
    async with serve_with_model(sqlite_url, model) as service:
        ada = service.user()
        async with locked(path):
            begun = time.monotonic()
            refused = await asyncio.gather(*(add(ada) for _ in range(60)))
            took = time.monotonic() - begun
        await wait_until_writable(ada)

    assert [is_unavailable(one) for one in refused] == [True] * 60
    assert took < 4


async def test_turn_with_expired_lease_during_outage_is_continued(
    sqlite_url: str, path: str, model: ModelServer, short_timeouts: None
) -> None:
    """Its tool call is not repeated, and its conversation accepts further messages."""
    rest = Event()
    model.script += [calls(MILK), says("All ", "done.").held(rest), says("Now it is done."), says("Again.")]
    async with serve_with_model(sqlite_url, model, LATCHKEY_TURN_LEASE_S="1") as service:
        ada = service.user()
        turn = asyncio.create_task(ada.post("chat", json={"message": "milk"}))
        await model.wait_for_requests(2)
        async with locked(path):
            rest.set()
            answer = await turn
        (conversation,) = await ada.list_items("conversations")
        (found,) = await ada.list_items(f"conversations/{conversation['id']}/turns")
        ended = await consistent_turn(ada, found["id"])
        again = await ada.chat("Hello?", conversation_id=conversation["id"])
        tasks = await tasks_of(ada)

    assert is_unavailable(answer)
    assert (ended["status"], ended["attempt"]) == ("completed", 2)
    assert len(tasks) == 1
    assert again["response"] == "Again."


async def test_client_that_waits_gets_its_answer_after_an_outage_longer_than_the_lease(
    sqlite_url: str, path: str, model: ModelServer, short_timeouts: None
) -> None:
    rest = Event()
    model.script += [calls(MILK), says("All ", "done.").held(rest), says("Now it is done.")]
    async with serve_with_model(sqlite_url, model, LATCHKEY_TURN_LEASE_S="2") as service:
        ada = service.user()
        turn = asyncio.create_task(ada.post("chat", json={"message": "milk"}))
        await model.wait_for_requests(2)
        async with locked(path):
            await asyncio.wait({turn}, timeout=2.5)
        answer = await turn

    assert (answer.status_code, answer.json()["response"]) == (200, "Now it is done.")
    assert len(answer.json()["tool_calls"]) == 1


@pytest.mark.parametrize("trouble", [Troubles.fill_the_disk, Troubles.forbid_writing], ids=["disk full", "read-only"])
async def test_failed_writes_are_unavailable_until_the_disk_recovers(
    sqlite_url: str, troubles: Troubles, trouble: Callable[[Troubles], None], model: ModelServer
) -> None:
    """A running turn keeps its events and completes if the disk recovers in time."""
    rest = Event()
    model.script += [calls(MILK), says("All ", "done." * 2000).held(rest)]
    async with serve_with_model(sqlite_url, model) as service:
        ada = service.user()
        turn = asyncio.create_task(ada.post("chat", json={"message": "milk"}))
        await model.wait_for_requests(2)
        trouble(troubles)
        refused = [await add(ada, 9000) for _ in range(3)] + [await ada.post("chat", json={"message": "x" * 30_000})]
        read = await ada.get("tasks")
        rest.set()
        refused.append(await add(ada, 9000))
        still_waiting = not turn.done()
        troubles.end()
        answer = await turn
        ended = await consistent_turn(ada, answer.json()["turn_id"])
        await wait_until_writable(ada)
        kept, oats = await tasks_of(ada), [task["title"] for task in await ada.list_items("tasks")]
        conversations = await ada.list_items("conversations")

    assert [is_unavailable(one) for one in refused] == [True] * 5, [one.text for one in refused]
    assert (read.status_code, still_waiting) == (200, True)
    assert (answer.status_code, ended["status"]) == (200, "completed")
    assert kept == tasks_added_by(ended)
    assert "Buy oats" not in oats
    assert len(conversations) == 1


@pytest.mark.parametrize("trouble", [Troubles.fill_the_disk, Troubles.forbid_writing], ids=["disk full", "read-only"])
async def test_tool_call_that_cannot_be_recorded_is_not_run(
    sqlite_url: str, troubles: Troubles, trouble: Callable[[Troubles], None], model: ModelServer
) -> None:
    rest = Event()
    big = ("add_task", '{"title":"Buy milk","description":"%s"}' % ("x" * 9000))
    model.script.append(calls(big, saying=("Well,",)).held(rest))
    async with serve_with_model(sqlite_url, model) as service:
        ada = service.user()
        turn = asyncio.create_task(ada.post("chat", json={"message": "milk"}))
        await model.wait_for_requests(1)
        trouble(troubles)
        rest.set()
        refused = await add(ada, 9000)
        # A model that is asked again would have been told of a result.
        troubles.end()
        answer = await turn
        ended = await consistent_turn(ada, answer.json()["turn_id"])
        kept = await tasks_of(ada)

    assert is_unavailable(refused)
    assert answer.status_code in {502, 503}
    assert ended["status"] == "failed"
    assert kept == tasks_added_by(ended)
