"""Quota usage per user: one row that all processes share."""

import asyncio
from datetime import datetime, timedelta

import pytest
from msgspec.structs import replace

from latchkey.application.context_tokens import mint_context_token
from latchkey.application.dispatcher import Dispatcher
from latchkey.application.quota import Reservation, reserve
from latchkey.application.tasks import add_task
from latchkey.domain.credentials import ARTIFACTS_READ, Credential, NewContextToken, Owner, TokenSecret
from latchkey.domain.errors import Exhausted, Unauthenticated
from latchkey.domain.page import Window
from latchkey.domain.ports import UnitsOfWork
from latchkey.domain.quota import ROW_BYTES, Quota, QuotaUsage
from latchkey.domain.task import NewTask
from tests.builders import NOW, an_artifact
from tests.contract.database.conftest import Replica
from tests.user_data import UserData

QUOTA = Quota(requests_per_minute=120, stored_bytes=10_000)
AT_REST = QuotaUsage(theoretical_arrival_time=NOW, stored_bytes=0, counted_at=NOW)
SCRIPTS = "Milch, молоко, 牛乳, 🥛"


async def drawn(units: UnitsOfWork, credential: Credential, requests: int, written: int = 0) -> Reservation:
    async with units.open(credential, "write") as uow:
        draft = await reserve(uow, QUOTA, requests, written)
        await uow.commit()
    return draft


async def size(units: UnitsOfWork, owner: Owner) -> int:
    async with units.open(owner, "read") as uow:
        return await uow.quota_usage.measure_storage()


async def test_rate_limit_is_shared_by_processes(replica: Replica, me: Owner) -> None:
    """Two processes together get the 120 requests of one minute, at once the first time."""
    here, there = replica(), replica()

    drafts = await asyncio.gather(*(drawn(units, me, 30) for units in (here, there) for _ in range(4)))

    taken = sum(draft.requests for draft in drafts)
    assert 120 <= taken <= 122  # one more is allowed each half second


async def test_quota_usage_isolation_between_users(units: UnitsOfWork, me: Owner, you: Owner) -> None:
    assert (await drawn(units, me, 120)).requests == 120
    assert (await drawn(units, you, 120)).requests == 120


@pytest.mark.parametrize(("later", "taken"), [(0, 0), (0.4, 0), (0.5, 1), (10, 20), (59, 118), (60, 120), (3_600, 120)])
def test_rate_limit_refills_evenly_up_to_one_minute(later: float, taken: int) -> None:
    spent, first = AT_REST.take(QUOTA, 500, NOW)

    assert first == 120
    assert spent.take(QUOTA, 500, NOW + timedelta(seconds=later))[1] == taken


def test_rate_limit_reached_reports_wait_seconds() -> None:
    slow = Quota(requests_per_minute=2)
    spent, _ = AT_REST.take(slow, 2, NOW)

    assert spent.wait_s(slow, NOW) == 30
    assert spent.take(slow, 1, NOW + timedelta(seconds=29.9))[1] == 0
    assert spent.take(slow, 1, NOW + timedelta(seconds=30))[1] == 1


def test_rate_limit_clock_skew_costs_at_most_one_minute() -> None:
    spent, _ = AT_REST.take(QUOTA, 120, NOW + timedelta(hours=1))

    now, taken = spent.take(QUOTA, 1, NOW)
    assert taken == 0
    assert spent.wait_s(QUOTA, NOW) <= 60
    assert now.take(QUOTA, 500, NOW + timedelta(minutes=1))[1] == 120


async def test_token_of_any_grant_uses_quota_of_its_user(units: UnitsOfWork, dispatcher: Dispatcher, me: Owner) -> None:
    token = await dispatcher.call(me, mint_context_token, NewContextToken([ARTIFACTS_READ]))

    assert (await drawn(units, token.secret, 100)).requests == 90  # 30 of 120 are kept for the owner
    assert (await drawn(units, me, 100)).requests in range(30, 35)


async def test_unknown_token_uses_no_quota(units: UnitsOfWork, me: Owner) -> None:
    with pytest.raises(Unauthenticated):
        await drawn(units, TokenSecret.mint(me.user_id), 100)

    assert (await drawn(units, me, 120)).requests == 120


async def test_measured_storage_counts_all_rows_of_user_only(units: UnitsOfWork, me: Owner, you: Owner) -> None:
    """Each row, and each byte of text in any script."""
    assert await size(units, me) == 0
    await UserData().store(units, me)
    await UserData().store(units, you)
    before = await size(units, me)
    assert before > 8 * ROW_BYTES

    async with units.open(me, "write") as uow:
        await uow.tasks.add(replace(UserData().task, title=SCRIPTS, description=None))
        await uow.commit()

    assert await size(units, me) - before == len(SCRIPTS.encode()) + ROW_BYTES


async def test_unit_of_work_counts_written_bytes(units: UnitsOfWork, me: Owner) -> None:
    """At least what a measurement finds afterwards; reading counts nothing."""
    async with units.open(me, "write") as uow:
        await uow.tasks.page(None, Window())
        assert uow.written == 0
        await uow.tasks.add(replace(UserData().task, title=SCRIPTS))
        written = uow.written
        await uow.commit()

    assert written >= await size(units, me) >= len(SCRIPTS.encode())


async def test_storage_quota_deleted_bytes_are_free_after_recount(replica: Replica, me: Owner) -> None:
    """A full quota is measured again, but not at each request, in any process."""
    units, plan = replica(), an_artifact()
    async with units.open(me, "write") as uow:
        await uow.artifacts.add(plan, "x" * 20_000)
        await uow.commit()
    assert not await may_store(units, me)

    async with units.open(me, "write") as uow:
        await uow.artifacts.delete(plan.id, uow.now)
        await uow.deletions.remove_part(100)
        await uow.commit()
    assert not await may_store(replica(), me)
    await counted_at(units, me, earlier_by=timedelta(seconds=31))

    assert await may_store(replica(), me)
    assert (await drawn(units, me, 0)).stored_bytes <= 3 * ROW_BYTES


async def test_storage_quota_recount_time_in_future_is_recounted(replica: Replica, me: Owner) -> None:
    """A process whose clock was ahead has written it."""
    units = replica()
    assert await may_store(units, me)
    assert (await drawn(units, me, 0, written=20_000)).is_recount_due is False
    await counted_at(units, me, earlier_by=-timedelta(days=2))

    assert await may_store(replica(), me)


async def may_store(units: UnitsOfWork, owner: Owner) -> bool:
    dispatcher = Dispatcher(units, lambda _call: None, QUOTA)
    try:
        await dispatcher.call(owner, add_task, NewTask("Milk"))
    except Exhausted:
        return False
    return True


async def counted_at(units: UnitsOfWork, owner: Owner, *, earlier_by: timedelta) -> None:
    async with units.open(owner, "write") as uow:
        usage = await uow.quota_usage.get()
        assert usage is not None
        earlier: datetime = usage.counted_at - earlier_by
        await uow.quota_usage.update(replace(usage, counted_at=earlier))
        await uow.commit()


async def test_storage_quota_adds_bytes_written_since_recount(units: UnitsOfWork, me: Owner) -> None:
    first = await drawn(units, me, 0)
    second = await drawn(units, me, 0, written=500)
    third = await drawn(units, me, 0, written=70)

    assert (second.stored_bytes - first.stored_bytes, third.stored_bytes - second.stored_bytes) == (500, 70)
