"""Turns side by side: who may begin one, and what a turn keeps from others while its model thinks."""

import asyncio
import sqlite3
from asyncio import Event
from collections.abc import Sequence

import asyncpg
import pytest

from tests.fakes.model_script import says
from tests.fakes.model_server import ModelServer
from tests.polling import wait_until
from tests.support.service import ApiUser, Service, model_variables, run_service, settings_for

pytestmark = pytest.mark.asyncio(loop_scope="session")

BUSY = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND state <> 'idle'"


@pytest.fixture
def ada(thinking: Service) -> ApiUser:
    return thinking.user()


async def test_a_conversation_has_one_running_turn_which_a_second_is_told(ada: ApiUser, model: ModelServer) -> None:
    rest = Event()
    conversation = await ada.create("conversations")
    model.script += [says("One.").held(rest), says("Two.")]
    first = asyncio.create_task(ada.chat("one", conversation_id=conversation["id"]))
    await wait_until(lambda: asked(model))
    refused = await ada.post("chat", json={"message": "two", "conversation_id": conversation["id"]})
    rest.set()
    answer = await first
    later = await ada.chat("two", conversation_id=conversation["id"])

    assert (refused.status_code, refused.json()["code"]) == (409, "turn-in-progress")
    assert refused.json()["turn_id"] == answer["turn_id"]
    assert [one["content"] for one in await ada.list_items(f"conversations/{conversation['id']}/messages")] == [
        "one",
        "One.",
        "two",
        "Two.",
    ]
    assert later["message"]["seq"] == 4


async def test_of_many_at_once_in_one_conversation_one_is_taken(ada: ApiUser, model: ModelServer) -> None:
    rest = Event()
    conversation = await ada.create("conversations")
    model.script += [says("One.").held(rest)]
    body = {"message": "hello", "conversation_id": conversation["id"]}
    racing = [asyncio.create_task(ada.post("chat", json=body)) for _ in range(5)]
    await wait_until(lambda: ended(racing, 4))
    rest.set()
    answers = await asyncio.gather(*racing)

    assert sorted(one.status_code for one in answers) == [200, 409, 409, 409, 409]
    assert len(await ada.list_items(f"conversations/{conversation['id']}/messages")) == 2


async def test_somebody_has_so_many_turns_at_once_and_no_more(
    thinking: Service, ada: ApiUser, model: ModelServer
) -> None:
    """Others are not kept from theirs; and once one has ended, there is room again."""
    rest = Event()
    model.script += [says("Done.").held(rest)] * 4 + [says("Hello.")] * 2
    running = [asyncio.create_task(ada.chat(f"number {number}")) for number in range(4)]
    await wait_until(lambda: asked(model, 4))
    refused = await ada.post("chat", json={"message": "one more"})
    other = await thinking.user().chat("hello")
    rest.set()
    await asyncio.gather(*running)

    assert (refused.status_code, refused.json()["code"]) == (429, "too-many-turns")
    assert int(refused.headers["retry-after"]) > 0
    assert other["response"] == "Hello."
    assert len(await ada.list_items("conversations")) == 4
    assert (await ada.chat("one more"))["response"] == "Hello."


async def test_no_transaction_is_open_while_models_think(
    shared_database_url: str, ada: ApiUser, model: ModelServer
) -> None:
    rest = Event()
    model.script += [says("Done.").held(rest)]
    turn = asyncio.create_task(ada.chat("hello"))
    await wait_until(lambda: asked(model))
    # What the model says first is written down meanwhile, in a transaction that ends.
    await wait_until(lambda: asyncio.to_thread(is_idle, shared_database_url))
    rest.set()
    await turn


async def test_more_models_may_think_than_there_are_connections(shared_database_url: str, model: ModelServer) -> None:
    """25 turns are held at once; a pool has 20 connections, and SQLite one writer."""
    rest = Event()
    model.script += [says("Done.").held(rest)] * 25
    async with run_service(settings_for(shared_database_url, **model_variables(model))) as service:
        people = [service.user() for _ in range(25)]
        turns = [asyncio.create_task(person.chat("hello")) for person in people]
        await wait_until(lambda: asked(model, 25))
        added = await people[0].create("tasks", title="Buy milk")
        rest.set()
        answers = await asyncio.gather(*turns)

        assert await people[0].list_items("tasks") == [added]
        assert {answer["response"] for answer in answers} == {"Done."}


def is_idle(database_url: str) -> bool:
    """Whether nobody has a transaction open, not even to read, as the database sees it."""
    if database_url.startswith("sqlite"):
        with sqlite3.connect(database_url.partition("///")[2], timeout=0, isolation_level=None) as database:
            busy, _, _ = database.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
        return not busy
    return asyncio.run(_busy(database_url)) == 1


async def _busy(database_url: str) -> int:
    """How many connections are at work; that of whoever asks is one."""
    connection = await asyncpg.connect(database_url)
    try:
        return int(await connection.fetchval(BUSY))
    finally:
        await connection.close()


async def asked(model: ModelServer, times: int = 1) -> bool:
    return len(model.requests) >= times


async def ended(tasks: Sequence[asyncio.Task[object]], count: int) -> bool:
    return len([task for task in tasks if task.done()]) >= count
