"""Contract of the task repository."""

import asyncio
from datetime import UTC, datetime, timedelta, timezone

import pytest
from msgspec.structs import replace

from latchkey.application.dispatcher import Dispatcher
from latchkey.application.tasks import complete_task, list_tasks, update_task
from latchkey.domain.credentials import Owner
from latchkey.domain.errors import Invalid, NotFound, StaleVersion
from latchkey.domain.page import Window
from latchkey.domain.ports import UnitsOfWork
from latchkey.domain.task import Task, TaskChanges
from tests.builders import NOW, a_conversation, a_task
from tests.contract.database.pagination import assert_pages, assert_refuses

TEXTS = {
    "plain": "Buy milk",
    "quotes": """it's "quoted" \\ and %s :name $1 ?""",
    "beyond the first plane": "🛒 買牛乳 \U0010ffff é e\u0301 \u200d \ufeff",
    "right to left and controls": "שלום \u202e\x01\x7f\t\r\n",
    "noncharacters": "\ufffe\uffff\U0001fffe",
    "long": "ä" * 10_000,
}


async def add(units: UnitsOfWork, owner: Owner, *tasks: Task) -> None:
    async with units.open(owner, "write") as uow:
        for task in tasks:
            await uow.tasks.add(task)
        await uow.commit()


@pytest.mark.parametrize("text", TEXTS.values(), ids=TEXTS)
async def test_task_round_trip(units: UnitsOfWork, me: Owner, text: str) -> None:
    task = a_task(text, description=text, status="completed", version=7, completed_at=NOW, due_at=NOW)
    task = replace(task, conversation_id=a_conversation().id)
    await add(units, me, task)

    async with units.open(me, "read") as uow:
        assert await uow.tasks.get(task.id) == task
        assert (await uow.tasks.page(None, Window())).items == [task]


async def test_text_with_nul_is_invalid_if_the_database_cannot_store_it(units: UnitsOfWork, me: Owner) -> None:
    """The interfaces refuse it before; this is for texts that a use case makes. SQLite stores them."""
    try:
        await add(units, me, task := a_task("a\x00b"))
    except Invalid as failure:
        assert "NUL" in failure.detail  # noqa: PT017 - only one of the databases refuses it
    else:
        async with units.open(me, "read") as uow:
            assert (await uow.tasks.get(task.id)).title == "a\x00b"


@pytest.mark.parametrize(
    "due_at",
    [
        datetime(2030, 6, 1, 12, 0, tzinfo=timezone(timedelta(hours=5, minutes=45))),
        datetime(1, 1, 2, tzinfo=UTC),
        datetime(9999, 12, 31, 23, 59, 59, tzinfo=UTC),
    ],
    ids=["another offset", "long ago", "far ahead"],
)
async def test_due_at_keeps_the_same_time_in_utc(units: UnitsOfWork, me: Owner, due_at: datetime) -> None:
    """With microseconds, and in UTC."""
    task = a_task(due_at=due_at)
    await add(units, me, task)

    async with units.open(me, "read") as uow:
        stored_due_at = (await uow.tasks.get(task.id)).due_at
        assert stored_due_at == due_at
        assert stored_due_at is not None
        assert stored_due_at.utcoffset() == timedelta(0)


async def test_task_pagination_newest_first(units: UnitsOfWork, me: Owner) -> None:
    """All tasks, and those of one status."""
    made = [a_task(f"{n}", status="completed" if n % 3 else "pending") for n in range(7)]
    await add(units, me, *reversed(made))
    newest_first = list(reversed(made))

    async with units.open(me, "read") as uow:
        await assert_pages(lambda window: uow.tasks.page(None, window), newest_first)
        completed = [task for task in newest_first if task.status == "completed"]
        await assert_pages(lambda window: uow.tasks.page("completed", window), completed)
        pending = [task for task in newest_first if task.status == "pending"]
        await assert_pages(lambda window: uow.tasks.page("pending", window), pending)


async def test_task_pagination_is_stable_under_concurrent_changes(units: UnitsOfWork, me: Owner) -> None:
    """A new task belongs before the first page, and a deleted one is only left out."""
    made = [a_task(f"{n}") for n in range(6)]
    await add(units, me, *made)
    async with units.open(me, "read") as uow:
        first = await uow.tasks.page(None, Window(2))

    await add(units, me, a_task("New"))
    async with units.open(me, "write") as uow:
        await uow.tasks.delete(first.items[-1].id)
        await uow.tasks.delete(made[0].id)
        await uow.commit()
    async with units.open(me, "read") as uow:
        rest = await uow.tasks.page(None, Window(200, first.next_cursor))

    assert [task.title for task in first.items + rest.items] == ["5", "4", "3", "2", "1"]


async def test_task_pagination_exactly_full_page_is_last(units: UnitsOfWork, me: Owner) -> None:
    await add(units, me, a_task(), a_task())

    async with units.open(me, "read") as uow:
        assert (await uow.tasks.page(None, Window(2))).next_cursor is None
        assert (await uow.tasks.page(None, Window(1))).next_cursor is not None
        assert (await uow.tasks.page("completed", Window(1))).next_cursor is None


async def test_task_cursor_of_another_listing_is_refused(units: UnitsOfWork, me: Owner) -> None:
    await add(units, me, a_task())
    async with units.open(me, "write") as uow:
        for _ in range(2):
            await uow.conversations.add(a_conversation())
        foreign = (await uow.conversations.page(Window(1))).next_cursor
        await assert_refuses(lambda window: uow.tasks.page(None, window), foreign)


async def test_task_cursor_isolation_between_users(units: UnitsOfWork, me: Owner, you: Owner) -> None:
    """A cursor is a position in time; the scope decides which user's tasks are listed."""
    for title, owner in {"mine 1": me, "yours 1": you, "mine 2": me, "yours 2": you}.items():
        await add(units, owner, a_task(title))
    async with units.open(you, "read") as uow:
        cursor = (await uow.tasks.page(None, Window(1))).next_cursor

    async with units.open(me, "read") as uow:
        assert [task.title for task in (await uow.tasks.page(None, Window(9, cursor))).items] == ["mine 2", "mine 1"]


async def test_concurrent_task_changes_are_all_stored(dispatcher: Dispatcher, units: UnitsOfWork, me: Owner) -> None:
    """Each waits for the previous one: twenty changes are twenty versions."""
    task = a_task()
    await add(units, me, task)

    await asyncio.gather(*(dispatcher.call(me, update_task, task.id, TaskChanges(title=f"{n}")) for n in range(20)))

    async with units.open(me, "read") as uow:
        assert (await uow.tasks.get(task.id)).version == 21


async def test_concurrent_changes_of_same_version_only_first_succeeds(
    dispatcher: Dispatcher, units: UnitsOfWork, me: Owner
) -> None:
    task = a_task()
    await add(units, me, task)

    outcomes = await asyncio.gather(
        *(dispatcher.call(me, update_task, task.id, TaskChanges(title=f"{n}"), 1) for n in range(10)),
        return_exceptions=True,
    )

    assert sorted(type(outcome).__name__ for outcome in outcomes) == ["StaleVersion"] * 9 + ["Task"]
    assert {outcome.detail for outcome in outcomes if isinstance(outcome, StaleVersion)} == {
        "The task is at version 2, not 1: read it again."
    }


async def test_concurrent_complete_is_one_change(dispatcher: Dispatcher, units: UnitsOfWork, me: Owner) -> None:
    task = a_task()
    await add(units, me, task)

    first, second = await asyncio.gather(*(dispatcher.call(me, complete_task, task.id) for _ in range(2)))

    assert first == second
    assert first.version == 2
    assert (await dispatcher.call(me, list_tasks, "completed")).items == [first]


async def test_deleted_task_is_gone(units: UnitsOfWork, me: Owner) -> None:
    task = a_task()
    await add(units, me, task)
    async with units.open(me, "write") as uow:
        await uow.tasks.delete(task.id)
        await uow.commit()

    async with units.open(me, "write") as uow:
        for again in (uow.tasks.get(task.id), uow.tasks.delete(task.id), uow.tasks.update(task)):
            with pytest.raises(NotFound, match=r"There is no such task\."):
                await again
