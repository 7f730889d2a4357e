"""The dispatcher runs every form of a use case: plain, decorated and partial."""

from collections.abc import Awaitable, Callable
from functools import partial, wraps
from typing import Any

import pytest

from latchkey.application.dispatcher import Dispatcher
from latchkey.application.tasks import add_task, list_tasks
from latchkey.domain.credentials import Owner
from latchkey.domain.ports import LogEntry, UnitsOfWork, UseCaseCall
from latchkey.domain.task import NewTask

OATS = NewTask("Oats")


def traced(use_case: Callable[..., Awaitable[Any]]) -> Callable[..., Awaitable[Any]]:
    @wraps(use_case)
    async def call(*args: Any, **kwargs: Any) -> Any:
        return await use_case(*args, **kwargs)

    return call


@pytest.mark.parametrize(
    "use_case",
    [traced(add_task), partial(add_task, new=OATS), partial(traced(add_task), new=OATS)],
    ids=["decorated", "partial", "partial of decorated"],
)
async def test_decorated_or_partial_use_case_runs_with_its_permission(
    units: UnitsOfWork, me: Owner, use_case: Callable[..., Awaitable[Any]]
) -> None:
    calls: list[LogEntry] = []
    dispatcher = Dispatcher(units, calls.append)
    await (dispatcher.call(me, use_case) if isinstance(use_case, partial) else dispatcher.call(me, use_case, OATS))

    assert [(call.use_case, call.outcome) for call in calls if isinstance(call, UseCaseCall)] == [("add_task", "ok")]
    assert [task.title for task in (await dispatcher.call(me, list_tasks)).items] == ["Oats"]


async def test_function_without_permission_does_not_run(dispatcher: Dispatcher, me: Owner) -> None:
    async def delete_everything(_: Any) -> None:
        raise AssertionError

    with pytest.raises(TypeError, match="declares no permission"):
        await dispatcher.call(me, delete_everything)
