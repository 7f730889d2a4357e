"""Contract of the unit of work: what is committed stays, everything else is rolled back."""

import asyncio
from contextlib import suppress
from itertools import count

import pytest
from msgspec.structs import replace

from latchkey.domain.credentials import Credential, Owner, TokenSecret
from latchkey.domain.errors import NotFound
from latchkey.domain.page import Window
from latchkey.domain.ports import TransactionMode, UnitsOfWork
from latchkey.domain.task import Task
from tests.builders import a_context_token, a_conversation, a_task
from tests.contract.database.cancellation import is_cancelled_at
from tests.contract.database.conftest import Replica

READ_ONLY = r"read.?only"


async def titles(units: UnitsOfWork, credential: Credential) -> list[str]:
    async with units.open(credential, "read") as uow:
        return [task.title for task in (await uow.tasks.page(None, Window(200))).items]


async def add(units: UnitsOfWork, credential: Credential, *tasks: Task) -> None:
    async with units.open(credential, "write") as uow:
        for task in tasks:
            await uow.tasks.add(task)
        await uow.commit()


async def test_commit_persists(units: UnitsOfWork, replica: Replica, me: Owner) -> None:
    """For every process."""
    await add(units, me, a_task("Buy milk"))

    assert await titles(units, me) == ["Buy milk"]
    assert await titles(replica(), me) == ["Buy milk"]


@pytest.mark.parametrize("mode", ["write", "exclusive"])
async def test_rollback_without_commit_leaves_nothing(units: UnitsOfWork, me: Owner, mode: TransactionMode) -> None:
    async with units.open(me, mode) as uow:
        await uow.tasks.add(a_task())

    assert await titles(units, me) == []


async def test_rollback_after_error_undoes_everything(units: UnitsOfWork, me: Owner) -> None:
    """The caller gets the error itself."""
    with pytest.raises(ZeroDivisionError):  # noqa: PT012 # a unit of work is one thing
        async with units.open(me, "write") as uow:
            await uow.tasks.add(a_task())
            raise ZeroDivisionError

    assert await titles(units, me) == []


async def test_returned_commit_has_persisted(units: UnitsOfWork, me: Owner) -> None:
    """Also if a use case catches a refused statement: the commit either keeps the rest or raises."""
    twice, committed = a_task("Twice"), False
    with suppress(Exception):
        async with units.open(me, "write") as uow:
            await uow.tasks.add(twice)
            with pytest.raises(Exception, match=r"UNIQUE|unique"):  # noqa: PT012 # a unit of work is one thing
                await uow.tasks.add(twice)
                await uow.tasks.get(twice.id)
            await uow.commit()
            committed = True

    assert await titles(units, me) == (["Twice"] if committed else [])


async def test_isolation_uncommitted_writes_are_invisible(units: UnitsOfWork, me: Owner) -> None:
    async with units.open(me, "write") as uow:
        await uow.tasks.add(a_task("Buy milk"))
        before = await titles(units, me)
        await uow.commit()

    assert before == []
    assert await titles(units, me) == ["Buy milk"]


async def test_unit_of_work_reads_its_own_writes(units: UnitsOfWork, me: Owner) -> None:
    task = a_task()
    async with units.open(me, "write") as uow:
        await uow.tasks.add(task)
        assert await uow.tasks.get(task.id) == task


async def test_read_mode_refuses_writes(units: UnitsOfWork, me: Owner) -> None:
    task = a_task()
    await add(units, me, task)

    with pytest.raises(Exception, match=READ_ONLY):
        async with units.open(me, "read") as uow:
            await uow.tasks.add(a_task("Another"))
    with pytest.raises(Exception, match=READ_ONLY):
        async with units.open(me, "read") as uow:
            await uow.tasks.update(replace(task, title="Changed"))
    with pytest.raises(Exception, match=READ_ONLY):
        async with units.open(me, "read") as uow:
            await uow.tasks.delete(task.id)

    assert await titles(units, me) == ["Buy milk"]


async def test_read_mode_refuses_message_number(units: UnitsOfWork, me: Owner) -> None:
    conversation = a_conversation()
    async with units.open(me, "write") as uow:
        await uow.conversations.add(conversation)
        await uow.commit()

    with pytest.raises(Exception, match=READ_ONLY):
        async with units.open(me, "read") as uow:
            await uow.conversations.next_message(conversation.id, uow.now)


@pytest.mark.parametrize("by", ["owner", "token"])
async def test_rollback_when_cancelled_at_any_point(units: UnitsOfWork, me: Owner, by: str) -> None:
    """At its first wait, at its second, and so on.

    It has happened as a whole or not at all, and the next unit finds everything in working order. (A cancelled
    commit may have happened: only the database knows.)
    """
    secret = TokenSecret.mint(me.user_id)
    async with units.open(me, "write") as uow:
        await uow.context_tokens.add(a_context_token(), secret)
        await uow.commit()
    credential: Credential = me if by == "owner" else secret

    for wait in count(1):
        pair = (a_task(f"{wait} first"), a_task(f"{wait} second"))
        if not await is_cancelled_at(wait, add(units, credential, *pair)):
            break
        await add(units, credential, a_task("And on"))
        seen = await titles(units, me)
        assert (pair[0].title in seen) == (pair[1].title in seen)
    assert wait > 1


async def test_cancelled_reads_leave_pool_usable(units: UnitsOfWork, me: Owner) -> None:
    """With more of them than connections in the pool."""
    for _ in range(10):
        for wait in count(1):
            if not await is_cancelled_at(wait, _read(units, me)):
                break
    assert await titles(units, me) == []


async def _read(units: UnitsOfWork, me: Owner) -> None:
    await titles(units, me)


async def test_exclusive_mode_runs_one_at_a_time_per_user(units: UnitsOfWork, replica: Replica, me: Owner) -> None:
    """In different processes too: the second does not start before the first has ended."""
    log: list[str] = []
    first_is_in = asyncio.Event()

    async def first() -> None:
        async with units.open(me, "exclusive") as uow:
            first_is_in.set()
            await uow.tasks.add(a_task("By the first"))
            for _ in range(20):
                await uow.tasks.page(None, Window())
            log.append("first ends")
            await uow.commit()

    async def second() -> None:
        await first_is_in.wait()
        async with replica().open(me, "exclusive") as uow:
            log.append("second begins")
            assert len((await uow.tasks.page(None, Window())).items) == 1

    await asyncio.gather(first(), second())
    assert log == ["first ends", "second begins"]


async def test_concurrent_exclusive_units_lose_no_update(units: UnitsOfWork, me: Owner) -> None:
    """Each reads, waits and writes; none overwrites another's update."""

    async def count_one_up() -> None:
        async with units.open(me, "exclusive") as uow:
            seen = await uow.tasks.page(None, Window(200))
            await uow.tasks.add(a_task(f"{len(seen.items) + 1}"))
            await uow.commit()

    await asyncio.gather(*(count_one_up() for _ in range(25)))
    assert sorted(map(int, await titles(units, me))) == list(range(1, 26))


async def test_new_ids_sort_in_order(units: UnitsOfWork, me: Owner) -> None:
    async with units.open(me, "read") as one, units.open(me, "read") as other:
        ids = [uow.new_id() for _ in range(500) for uow in (one, other)]

    assert ids == sorted(set(ids))
    assert {id.version for id in ids} == {7}


async def test_now_has_offset_and_is_constant_in_unit_of_work(units: UnitsOfWork, me: Owner) -> None:
    async with units.open(me, "read") as uow:
        before = uow.now
        await uow.tasks.page(None, Window())
        assert uow.now == before
        offset = before.utcoffset()
        assert offset is not None
        assert not offset


async def test_unknown_ids_are_not_found(units: UnitsOfWork, me: Owner) -> None:
    with pytest.raises(NotFound, match="There is no such task"):
        async with units.open(me, "read") as uow:
            await uow.tasks.get(a_task().id)
