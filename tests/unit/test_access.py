"""Permissions of use cases: how they are declared, and which functions can be use cases."""

from collections.abc import Awaitable, Callable
from functools import partial, wraps
from typing import Any
from uuid import uuid4

import pytest
from msgspec.structs import replace

from latchkey.application.access import Permission, name_of, owner_only, permission_of, requires, tool
from latchkey.domain.credentials import BUILT_IN_GRANTS, TASKS_READ, TASKS_WRITE, ContextTokenId, Scope, UserId
from latchkey.domain.errors import Forbidden
from latchkey.domain.ports import UnitOfWork

READ = Permission(TASKS_READ, "read", use_case="count_tasks")


@requires(TASKS_READ)
async def count_tasks(_: UnitOfWork, factor: int = 1) -> int:
    return factor


def logged(use_case: Callable[..., Awaitable[Any]]) -> Callable[..., Awaitable[Any]]:
    @wraps(use_case)
    async def call(*args: Any, **kwargs: Any) -> Any:
        return await use_case(*args, **kwargs)

    return call


@pytest.mark.parametrize(
    "use_case",
    [count_tasks, logged(count_tasks), partial(count_tasks, factor=2), partial(partial(logged(count_tasks)), factor=2)],
    ids=["function", "decorated", "partial", "partial of decorated"],
)
def test_permission_and_name_of_use_case(use_case: Callable[..., Any]) -> None:
    assert (permission_of(use_case), name_of(use_case)) == (READ, "count_tasks")


def test_plain_function_is_refused_when_declared() -> None:
    def count(_: UnitOfWork) -> int:
        return 0

    with pytest.raises(TypeError, match="cannot be a use case, because it is not async: make it `async def`"):
        requires(TASKS_READ)(count)
    with pytest.raises(TypeError, match="because it is not async"):
        owner_only("read")(count)


async def count_without_permission(_: UnitOfWork) -> int:
    return 0


@pytest.mark.parametrize(
    "use_case",
    [count_without_permission, partial(count_without_permission), logged(count_without_permission)],
    ids=["function", "partial", "decorated"],
)
def test_function_without_permission_is_refused(use_case: Callable[..., Any]) -> None:
    with pytest.raises(TypeError, match="declares no permission: decorate it with `requires` or `owner_only`"):
        permission_of(use_case)


def test_context_token_without_grant_is_forbidden() -> None:
    token = Scope(UserId("ada"), frozenset({TASKS_WRITE}), token_id=ContextTokenId(uuid4()))

    with pytest.raises(Forbidden, match="requires a token with the grant tasks:read"):
        READ.check(token)
    READ.check(Scope(UserId("ada")))


@pytest.mark.parametrize(
    "use_case",
    [count_tasks, partial(count_tasks), logged(count_tasks)],
    ids=["function", "partial", "decorated"],
)
def test_context_token_of_certain_tools_is_forbidden_other_use_cases(use_case: Callable[..., Any]) -> None:
    """Even if it has their grant; the user's own credential has no such limit."""
    permission = permission_of(use_case)
    token = Scope(UserId("ada"), frozenset(BUILT_IN_GRANTS), ContextTokenId(uuid4()), tools=frozenset({"add_task"}))

    with pytest.raises(Forbidden, match="for other tools than count_tasks"):
        permission.check(token)
    permission.check(replace(token, tools=frozenset({"add_task", "count_tasks"})))
    permission.check(Scope(UserId("ada")))


def test_context_token_is_forbidden_for_owner_only() -> None:
    token = Scope(UserId("ada"), frozenset(BUILT_IN_GRANTS), token_id=ContextTokenId(uuid4()))

    with pytest.raises(Forbidden, match="requires the user's own token"):
        Permission(None, "write").check(token)
    Permission(None, "write").check(Scope(UserId("ada")))


def test_tool_whose_decorators_name_different_grants_is_refused() -> None:
    """The permission would be that of the other decorator, and the tool would open what nobody declared for it."""

    async def count(_: UnitOfWork) -> int:
        raise NotImplementedError

    with pytest.raises(TypeError, match="is a tool with the grant tasks:write and requires tasks:read: use one"):
        tool("tasks:write", title="Count")(requires(TASKS_READ)(count))
