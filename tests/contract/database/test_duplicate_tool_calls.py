"""Duplicate tool calls: a call that repeats an id has no second effect and gets the first result."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any
from uuid import uuid4

import msgspec
import pytest

from latchkey.application.artifacts import save_artifact
from latchkey.application.dispatcher import Dispatcher
from latchkey.application.tasks import add_task, complete_task, delete_task, list_tasks
from latchkey.application.tool_calls import ToolCallExecutor
from latchkey.application.turns.finish import PublishedTurn
from latchkey.application.turns.read import get_turn
from latchkey.application.turns.start import StartedTurn
from latchkey.domain.credentials import BUILT_IN_GRANTS, Owner
from latchkey.domain.errors import Failure, Invalid
from latchkey.domain.ports import LogEntry, UseCaseCall
from latchkey.domain.task import NewTask, TaskId
from latchkey.domain.tool_call import ToolInvocation, ToolOutcome
from tests.contract.database.conftest import Replica
from tests.turns import started_turn

MILK = b'{"title":"Milk","description":"two"}'
MILK_REORDERED = b'{ "description": "two", "title": "Milk" }'
ID_CONFLICT = msgspec.json.encode(
    {"code": "conflict", "detail": "Another call was made with this id: give each call its own id."}
)


class Turn:
    """A turn of a user, whose tools can be called in two processes."""

    def __init__(self, replica: Replica, owner: Owner) -> None:
        self.dispatchers = [Dispatcher(replica(), lambda _call: None) for _ in range(2)]
        self.owner = owner
        self.started: StartedTurn

    async def start(self) -> None:
        self.started = await started_turn(self.dispatchers[0], self.owner, grants=list(BUILT_IN_GRANTS))

    async def call(
        self,
        use_case: Callable[..., Awaitable[object]],
        *args: Any,
        arguments: bytes = MILK,
        call_id: str | None = "call-1",
        process: int = 0,
    ) -> ToolOutcome:
        invocation = ToolInvocation(use_case.__name__, arguments, call_id)
        return await ToolCallExecutor(self.dispatchers[process]).execute(
            self.started.secret, invocation, use_case, *args
        )

    async def add(self, arguments: bytes = MILK, call_id: str | None = "call-1", process: int = 0) -> ToolOutcome:
        new = msgspec.json.decode(arguments, type=NewTask)
        return await self.call(add_task, new, arguments=arguments, call_id=call_id, process=process)

    async def refuse(self, failure: Failure, arguments: bytes) -> ToolOutcome:
        invocation = ToolInvocation("add_task", arguments, "call-1")
        return await ToolCallExecutor(self.dispatchers[0]).record_failure(
            self.started.secret, invocation, add_task, failure
        )

    async def task_titles(self) -> list[str]:
        return [task.title for task in (await self.dispatchers[0].call(self.owner, list_tasks)).items]

    async def published(self) -> PublishedTurn:
        return await self.dispatchers[0].call(self.owner, get_turn, self.started.turn.id)

    async def recorded(self) -> int:
        return len((await self.published()).tool_calls)


@pytest.fixture
async def turn(replica: Replica, me: Owner) -> Turn:
    turn = Turn(replica, me)
    await turn.start()
    return turn


@pytest.mark.parametrize("again", [MILK, MILK_REORDERED], ids=["same bytes", "other member order"])
@pytest.mark.parametrize("process", [0, 1], ids=["here", "in another process"])
async def test_duplicate_call_has_one_effect_and_first_result(turn: Turn, again: bytes, process: int) -> None:
    first = await turn.add()
    repeated = await turn.add(again, process=process)

    assert repeated.json == first.json
    assert repeated.content == msgspec.json.decode(first.json)
    assert (first.is_error, repeated.is_error) == (False, False)
    assert await turn.task_titles() == ["Milk"]
    assert await turn.recorded() == 1


async def test_duplicate_call_returns_first_result_after_later_changes(turn: Turn) -> None:
    """The result tells what the call did, not the current state."""
    first = await turn.add()
    task_id = TaskId(first.content.id)
    await turn.call(complete_task, task_id, arguments=b"{}", call_id="call-2")

    assert (await turn.add()).json == first.json
    await turn.call(delete_task, task_id, arguments=b"{}", call_id="call-3")
    assert (await turn.add()).json == first.json
    assert await turn.task_titles() == []


async def test_duplicate_delete_returns_deleted_task(turn: Turn) -> None:
    """Not with `NotFound`, although the task is gone."""
    task_id = TaskId((await turn.add(call_id="make")).content.id)
    arguments = msgspec.json.encode({"task_id": task_id})
    first, repeated = [await turn.call(delete_task, task_id, arguments=arguments) for _ in range(2)]

    assert repeated.json == first.json
    assert not repeated.is_error
    assert repeated.content["title"] == "Milk"
    assert await turn.recorded() == 2


async def test_duplicate_save_makes_no_second_artifact(turn: Turn) -> None:
    arguments = b'{"title":"Plan","content_markdown":"#"}'
    first, repeated = [await turn.call(save_artifact, "Plan", "#", arguments=arguments) for _ in range(2)]

    assert repeated.json == first.json
    assert [(one.id, one.version) for one in (await turn.published()).artifacts] == [(first.content.id, 1)]


async def test_duplicate_of_failed_call_returns_same_failure(turn: Turn) -> None:
    """Also if the call would succeed now."""
    task_id = TaskId(uuid4())
    first, repeated = [await turn.call(complete_task, task_id, arguments=b"{}") for _ in range(2)]

    assert first == repeated
    assert first.is_error
    assert first.content["code"] == "not-found"
    assert await turn.recorded() == 1


async def test_duplicate_of_invalid_arguments_returns_same_failure(turn: Turn) -> None:
    """Arguments are validated before the tool runs. A corrected call is another call and needs its own id."""
    first, repeated = [await turn.refuse(Invalid.at("$.title", detail), b'{"title":5}') for detail in ("1st", "2nd")]
    mended = await turn.add()

    assert first == repeated
    assert first.content == {"code": "invalid", "detail": "$.title: 1st"}
    assert (mended.json, mended.is_error) == (ID_CONFLICT, True)
    assert await turn.recorded() == 1
    assert await turn.task_titles() == []


@pytest.mark.parametrize("tool", ["add", "delete", "fail"])
async def test_concurrent_duplicate_calls_have_one_effect(turn: Turn, tool: str) -> None:
    """In two processes; all get the same result."""
    task_id = TaskId((await turn.add(call_id="make")).content.id) if tool == "delete" else TaskId(uuid4())

    async def call(process: int) -> ToolOutcome:
        if tool == "add":
            return await turn.add(process=process)
        return await turn.call(delete_task, task_id, arguments=b"{}", process=process)

    answers = await asyncio.gather(*(call(number % 2) for number in range(8)))

    assert {(answer.json, answer.is_error) for answer in answers} == {(answers[0].json, tool == "fail")}
    assert await turn.task_titles() == (["Milk"] if tool == "add" else [])
    assert await turn.recorded() == (2 if tool == "delete" else 1)


@pytest.mark.parametrize(
    "arguments",
    [b'{"title":"Oats","description":"two"}', b'{"title":"Milk"}', b'{"title":"Milk","description":null}'],
    ids=["another value", "one left out", "one cleared"],
)
async def test_duplicate_call_id_with_other_arguments_is_conflict(turn: Turn, arguments: bytes) -> None:
    """The model gets an error, and nothing is changed."""
    first = await turn.add()
    other = await turn.add(arguments)

    assert (other.json, other.is_error) == (ID_CONFLICT, True)
    assert other.content == msgspec.json.decode(ID_CONFLICT)
    assert await turn.task_titles() == ["Milk"]
    assert (await turn.add()).json == first.json
    assert await turn.recorded() == 1


async def test_duplicate_call_id_with_similar_values_is_conflict(turn: Turn) -> None:
    await turn.call(list_tasks, arguments=b'{"limit":1}')

    for arguments in (b'{"limit":true}', b'{"limit":1.0}', b'{"limit":"1"}'):
        assert (await turn.call(list_tasks, arguments=arguments)).json == ID_CONFLICT


async def test_duplicate_call_id_of_another_tool_is_conflict(turn: Turn) -> None:
    first = await turn.add()
    other = await turn.call(delete_task, TaskId(first.content.id))

    assert (other.json, other.is_error) == (ID_CONFLICT, True)
    assert await turn.task_titles() == ["Milk"]
    assert await turn.recorded() == 1


async def test_same_call_id_in_another_turn_is_another_call(turn: Turn) -> None:
    """Also for the same user."""
    first = await turn.add()
    await turn.start()
    second = await turn.add()

    assert second.content.id != first.content.id
    assert await turn.task_titles() == ["Milk", "Milk"]
    assert await turn.recorded() == 1


async def test_calls_without_id_are_never_duplicates(turn: Turn) -> None:
    """Two equal calls without an id are two tasks: that may be intended."""
    answers = [await turn.add(call_id=None) for _ in range(2)]

    assert answers[0].json != answers[1].json
    assert await turn.task_titles() == ["Milk", "Milk"]
    assert await turn.recorded() == 2


async def test_duplicate_calls_outside_turn_have_one_effect_and_are_not_recorded(turn: Turn) -> None:
    executor, invocation = ToolCallExecutor(turn.dispatchers[0]), ToolInvocation("add_task", MILK, "call-1")
    for _ in range(2):
        assert not (await executor.execute(turn.owner, invocation, add_task, NewTask("Milk"))).is_error

    assert await turn.task_titles() == ["Milk"]
    assert await turn.recorded() == 0


async def test_failed_call_of_user_without_call_id_is_one_unit_of_work(replica: Replica, me: Owner) -> None:
    """There is nothing to record: the call belongs to no turn, and cannot be recognized when it is repeated."""
    calls: list[LogEntry] = []
    executor = ToolCallExecutor(Dispatcher(replica(), calls.append))
    invocation = ToolInvocation("complete_task", b"{}")
    outcome = await executor.execute(me, invocation, complete_task, TaskId(uuid4()))

    assert outcome.code == "not-found"
    assert [(call.use_case, call.outcome) for call in calls if isinstance(call, UseCaseCall)] == [
        ("complete_task", "not-found")
    ]
