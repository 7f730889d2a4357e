"""Reads are bounded in bytes: listings, the history for the model, and single turns."""

from itertools import pairwise

import msgspec
import pytest
from msgspec import Raw

from latchkey.application.conversations import TRANSCRIPT_BYTES, get_transcript
from latchkey.application.dispatcher import Dispatcher
from latchkey.domain.conversation import Conversation
from latchkey.domain.credentials import Owner
from latchkey.domain.message import Message
from latchkey.domain.page import PAGE_BYTES, Window
from latchkey.domain.ports import UnitsOfWork
from latchkey.domain.task import TaskId, TaskStatus
from latchkey.domain.tool_call import ToolCall
from latchkey.domain.turn import Turn
from latchkey.domain.turn_repositories import LISTING, ONE_TURN, Order
from tests.builders import a_conversation, a_message, a_task, a_tool_call, a_turn

KIB = 1024


def a_result(size: int) -> Raw:
    return Raw(msgspec.json.encode("é" * ((size - 2) // 2)))


async def store(units: UnitsOfWork, owner: Owner, sizes: list[list[int]], answer: str = "Yes") -> Conversation:
    """A conversation of turns, each with calls whose results have these sizes."""
    conversation = a_conversation()
    async with units.open(owner, "write") as uow:
        await uow.conversations.add(conversation, messages=2 * len(sizes))
        for n, results in enumerate(sizes):
            turn = a_turn(conversation, status="completed")
            calls = [a_tool_call(f"tool {n}", result=a_result(size)) for n, size in enumerate(results)]
            await uow.turns.add(turn)
            for call in calls:
                await uow.tool_calls.add(call, turn.id)
            await uow.messages.add(a_message(turn, 2 * n + 1, f"Message {n}"))
            await uow.messages.add(a_message(turn, 2 * n + 2, answer, role="assistant", tool_calls=calls))
        await uow.commit()
    return conversation


def size_of(calls: list[ToolCall]) -> int:
    return sum(call.size for call in calls)


@pytest.mark.parametrize("order", ["asc", "desc"])
async def test_messages_page_is_bounded_in_bytes_and_pagination_loses_nothing(
    units: UnitsOfWork, me: Owner, order: Order
) -> None:
    conversation = await store(units, me, [[60 * KIB] * 10 for _ in range(20)])

    pages: list[list[Message]] = []
    cursor = None
    async with units.open(me, "read") as uow:
        while not pages or cursor:
            page = await uow.messages.page(conversation.id, Window(200, cursor), order)
            pages.append(page.items)
            cursor = page.next_cursor

    messages = [message for page in pages for message in page]
    assert [message.seq for message in messages] == (list(range(1, 41)) if order == "asc" else list(range(40, 0, -1)))
    assert all(len(message.tool_calls) == (10 if message.role == "assistant" else 0) for message in messages)
    assert not any(call.omitted for message in messages for call in message.tool_calls)
    assert len(pages) > 4
    assert all(0 < size_of([c for m in page for c in m.tool_calls]) < PAGE_BYTES + 700 * KIB for page in pages)


async def test_messages_page_is_bounded_by_their_own_text(units: UnitsOfWork, me: Owner) -> None:
    conversation = await store(units, me, [[]] * 8, answer="買" * 300_000)

    pages: list[list[Message]] = []
    cursor = None
    async with units.open(me, "read") as uow:
        while not pages or cursor:
            page = await uow.messages.page(conversation.id, Window(50, cursor), "asc")
            pages.append(page.items)
            cursor = page.next_cursor

    assert [message.seq for page in pages for message in page] == list(range(1, 17))
    assert [len(page) for page in pages] == [6, 6, 4]


async def test_turns_page_is_bounded_in_bytes_and_pagination_loses_nothing(units: UnitsOfWork, me: Owner) -> None:
    conversation = await store(units, me, [[], *[[60 * KIB] * 10 for _ in range(20)], [], []])

    turns: list[Turn] = []
    pages, cursor = 0, None
    async with units.open(me, "read") as uow:
        while not pages or cursor:
            page = await uow.turns.page(conversation.id, Window(200, cursor))
            turns += [item.turn for item in page.items]
            assert size_of([call for item in page.items for call in item.calls]) < PAGE_BYTES + 700 * KIB
            pages, cursor = pages + 1, page.next_cursor

    assert len(turns) == 23
    assert all(first.id > second.id for first, second in pairwise(turns))
    assert pages > 4


async def test_large_result_is_omitted_in_listings_with_a_note(units: UnitsOfWork, me: Owner) -> None:
    """The note says how large it is and where the whole is; the single turn has it whole."""
    conversation = await store(units, me, [[100 * KIB, 1 * KIB]])

    async with units.open(me, "read") as uow:
        (item,) = (await uow.turns.page(conversation.id, Window())).items
        (_, answer) = (await uow.messages.page(conversation.id, Window(), "asc")).items
        whole = await uow.tool_calls.list_of_turn(item.turn.id)

    assert item.calls == answer.tool_calls
    large, small = item.calls
    assert large.omitted == ["result"]
    assert msgspec.json.decode(large.result)["omitted_bytes"] == 100 * KIB
    assert "GET turns/{turn_id}" in msgspec.json.decode(large.result)["detail"]
    assert bytes(large.arguments) == bytes(whole[0].arguments)
    assert (small.omitted, bytes(small.result)) == ([], bytes(a_result(1 * KIB)))
    assert [call.omitted for call in whole] == [[], []]
    assert bytes(whole[0].result) == bytes(a_result(100 * KIB))


async def test_calls_of_one_turn_are_bounded_in_bytes(units: UnitsOfWork, me: Owner) -> None:
    """The first calls are whole; small results always are."""
    conversation = await store(units, me, [[1024 * KIB] * 12 + [1 * KIB]])

    async with units.open(me, "read") as uow:
        (item,) = (await uow.turns.page(conversation.id, Window())).items
        calls = await uow.tool_calls.list_of_turn(item.turn.id)

    assert [bool(call.omitted) for call in calls] == [False] * 7 + [True] * 5 + [False]
    assert size_of(calls) <= ONE_TURN.turn_bytes
    assert size_of(item.calls) < LISTING.turn_bytes


async def test_history_reads_only_what_the_model_is_given(units: UnitsOfWork, me: Owner) -> None:
    """Whole turns, newest first, up to the first that does not fit."""
    conversation = await store(units, me, [[100], [50_000], [100], [300, 300]])

    async with units.open(me, "read") as uow:
        for characters, turns in ((100_000, 4), (50_000, 2), (700, 1), (500, 0)):
            history = await uow.messages.history(conversation.id, 40, characters)
            assert [turn.message for turn in history] == [f"Message {n}" for n in range(4 - turns, 4)]
            assert not any(call.omitted for turn in history for call in turn.tool_calls)


async def test_history_counts_characters_not_bytes(units: UnitsOfWork, me: Owner) -> None:
    conversation = await store(units, me, [[]] * 3, answer="買" * 1000)

    async with units.open(me, "read") as uow:
        assert len(await uow.messages.history(conversation.id, 40, 3100)) == 3
        assert len(await uow.messages.history(conversation.id, 40, 2900)) == 2


@pytest.mark.parametrize("status", [None, "pending"])
async def test_tasks_page_is_bounded_in_bytes_and_pagination_loses_nothing(
    units: UnitsOfWork, me: Owner, status: TaskStatus | None
) -> None:
    made = [a_task(description="買" * 10_000) for _ in range(150)]
    async with units.open(me, "write") as uow:
        for task in made:
            await uow.tasks.add(task)
        await uow.commit()

    titles: list[TaskId] = []
    lengths: list[int] = []
    cursor = None
    async with units.open(me, "read") as uow:
        while not lengths or cursor:
            page = await uow.tasks.page(status, Window(200, cursor))
            titles += [task.id for task in page.items]
            lengths.append(len(page.items))
            cursor = page.next_cursor

    assert titles == [task.id for task in reversed(made)]
    assert lengths == [70, 70, 10]


async def test_transcript_is_bounded_in_bytes(dispatcher: Dispatcher, units: UnitsOfWork, me: Owner) -> None:
    """It has the newest messages."""
    conversation = await store(units, me, [[60 * KIB] * 10 for _ in range(20)])

    transcript = await dispatcher.call(me, get_transcript, conversation.id)

    assert transcript.messages[-1].seq == 40
    assert sum(message.size for message in transcript.messages) < TRANSCRIPT_BYTES + PAGE_BYTES
