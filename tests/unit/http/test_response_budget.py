"""The budget of bytes for responses that clients have not received yet."""

import asyncio

import pytest

from latchkey.domain.errors import Unavailable
from latchkey.interfaces.http.server import response_budget
from latchkey.interfaces.http.server.response_budget import ResponseBudget


class SlowClient:
    def __init__(self, user_id: str | None, unsent_bytes: int) -> None:
        self.user_id = user_id
        self.unsent_bytes = unsent_bytes


@pytest.fixture(autouse=True)
def _short_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(response_budget, "WAIT_S", 0.1)


async def has_room(budget: ResponseBudget, user_id: str | None, size: int) -> bool:
    try:
        async with budget.reserve(user_id, size):
            return True
    except Unavailable:
        return False


async def test_slow_clients_of_one_user_leave_room_for_others() -> None:
    budget = ResponseBudget(1000)
    for _ in range(4):
        budget.add(SlowClient("ada", 100))

    assert not await has_room(budget, "ada", 300)
    assert await has_room(budget, "ada", 200)
    assert await has_room(budget, "bob", 600)
    assert await has_room(budget, None, 600)


async def test_many_users_never_exceed_the_budget() -> None:
    budget = ResponseBudget(1000)
    held = 0
    for n in range(200):
        if await has_room(budget, f"user {n % 20}", 50):
            held += 50
            budget.add(SlowClient(f"user {n % 20}", 50))
        if n >= 40 and held > 900:
            break

    assert 900 <= held <= 1000


async def test_closed_connection_frees_its_bytes() -> None:
    budget, client = ResponseBudget(1000), SlowClient("ada", 900)
    budget.add(client)
    assert not await has_room(budget, "ada", 100)

    budget.remove(client)

    assert await has_room(budget, "ada", 100)


async def test_response_waits_for_room(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is woken when a connection has sent its bytes, and when another response is not sent after all."""
    monkeypatch.setattr(response_budget, "WAIT_S", 60)
    budget, client = ResponseBudget(1000), SlowClient("ada", 400)
    budget.add(client)
    async with budget.reserve("ada", 50):
        waiting = [asyncio.create_task(has_room(budget, "ada", size)) for size in (150, 400)]
        await asyncio.wait(waiting, timeout=0.02)
        assert not any(task.done() for task in waiting)
    assert await waiting[0]
    budget.remove(client)
    assert await waiting[1]


async def test_response_gets_room_that_a_slow_client_has_made() -> None:
    """At the end of its wait: nothing happens when a client has received a part."""
    budget, client = ResponseBudget(1000), SlowClient("ada", 900)
    budget.add(client)
    waiting = asyncio.create_task(has_room(budget, "ada", 100))
    await asyncio.sleep(0)
    client.unsent_bytes = 0

    assert await waiting


async def test_waiting_responses_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each uses memory while it waits."""
    monkeypatch.setattr(response_budget, "MAX_WAITING_BYTES", 250)
    budget = ResponseBudget(1000)
    budget.add(SlowClient("ada", 900))
    waiting = [asyncio.create_task(has_room(budget, "ada", 100)) for _ in range(4)]
    done, _ = await asyncio.wait(waiting, timeout=0.02, return_when=asyncio.FIRST_COMPLETED)

    assert len(done) == 2
    assert await asyncio.gather(*waiting) == [False] * 4
