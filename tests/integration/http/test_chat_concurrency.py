"""Concurrent turns: the limits per conversation and user, and what a turn holds while its model answers."""

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
def ada(model_service: Service) -> ApiUser:
    return model_service.user()


async def test_concurrent_turn_in_the_same_conversation_is_a_conflict(ada: ApiUser, model: ModelServer) -> None:
    release = Event()
    conversation = await ada.create("conversations")
    model.script += [says("One.").held(release), says("Two.")]
    first = asyncio.create_task(ada.chat("one", conversation_id=conversation["id"]))
    await model.wait_for_requests()
    refused = await ada.post("chat", json={"message": "two", "conversation_id": conversation["id"]})
    release.set()
    answer = await first
    later = await ada.chat("two", conversation_id=conversation["id"])

    assert (refused.status_code, refused.json()["code"]) == (409, "turn-in-progress")
    assert refused.json()["turn_id"] == answer["turn_id"]
    assert [item["content"] for item in await ada.list_items(f"conversations/{conversation['id']}/messages")] == [
        "one",
        "One.",
        "two",
        "Two.",
    ]
    assert later["message"]["seq"] == 4


async def test_concurrent_turns_in_one_conversation_accept_exactly_one(ada: ApiUser, model: ModelServer) -> None:
    release = Event()
    conversation = await ada.create("conversations")
    model.script += [says("One.").held(release)]
    body = {"message": "hello", "conversation_id": conversation["id"]}
    racing = [asyncio.create_task(ada.post("chat", json=body)) for _ in range(5)]
    await wait_until(lambda: ended(racing, 4))
    release.set()
    answers = await asyncio.gather(*racing)

    assert sorted(response.status_code for response in answers) == [200, 409, 409, 409, 409]
    assert len(await ada.list_items(f"conversations/{conversation['id']}/messages")) == 2


async def test_concurrent_turns_of_one_user_are_limited(
    model_service: Service, ada: ApiUser, model: ModelServer
) -> None:
    """Other users are not affected, and a finished turn frees its slot."""
    release = Event()
    model.script += [says("Done.").held(release)] * 4 + [says("Hello.")] * 2
    running = [asyncio.create_task(ada.chat(f"number {number}")) for number in range(4)]
    await model.wait_for_requests(4)
    refused = await ada.post("chat", json={"message": "one more"})
    other = await model_service.user().chat("hello")
    release.set()
    await asyncio.gather(*running)

    assert (refused.status_code, refused.json()["code"]) == (429, "too-many-turns")
    assert int(refused.headers["retry-after"]) > 0
    assert other["response"] == "Hello."
    assert len(await ada.list_items("conversations")) == 4
    assert (await ada.chat("one more"))["response"] == "Hello."


async def test_concurrent_turns_hold_no_transaction_while_the_model_answers(
    shared_database_url: str, ada: ApiUser, model: ModelServer
) -> None:
    release = Event()
    model.script += [says("Done.").held(release)]
    turn = asyncio.create_task(ada.chat("hello"))
    await model.wait_for_requests()
    # The first text of the model is stored meanwhile, in a transaction that ends.
    await wait_until(lambda: asyncio.to_thread(is_idle, shared_database_url))
    release.set()
    await turn


async def test_concurrent_turns_may_exceed_the_connection_pool(shared_database_url: str, model: ModelServer) -> None:
    """25 turns wait for their models; the pool has 20 connections, and SQLite one writer."""
    release = Event()
    model.script += [says("Done.").held(release)] * 25
    async with run_service(settings_for(shared_database_url, **model_variables(model))) as service:
        users = [service.user() for _ in range(25)]
        turns = [asyncio.create_task(user.chat("hello")) for user in users]
        await model.wait_for_requests(25)
        added = await users[0].create("tasks", title="Buy milk")
        release.set()
        answers = await asyncio.gather(*turns)

        assert await users[0].list_items("tasks") == [added]
        assert {answer["response"] for answer in answers} == {"Done."}


def is_idle(database_url: str) -> bool:
    """Whether no transaction is open, not even a read-only one, as the database reports."""
    if database_url.startswith("sqlite"):
        with sqlite3.connect(database_url.partition("///")[2], timeout=0, isolation_level=None) as database:
            busy, _, _ = database.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
        return not busy
    return asyncio.run(_busy(database_url)) == 1


async def _busy(database_url: str) -> int:
    """The number of active connections, including the one that asks."""
    connection = await asyncpg.connect(database_url)
    try:
        return int(await connection.fetchval(BUSY))
    finally:
        await connection.close()


async def ended(tasks: Sequence[asyncio.Task[object]], count: int) -> bool:
    return len([task for task in tasks if task.done()]) >= count
