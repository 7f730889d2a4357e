"""Tool calls outside a turn: a call that repeats an id within 24 hours has no second effect (idempotency)."""

import asyncio
from datetime import timedelta

import msgspec
import pytest

from latchkey.application.context_tokens import mint_context_token
from latchkey.application.dispatcher import Dispatcher
from latchkey.application.tasks import add_task, list_tasks
from latchkey.application.tool_calls import ToolCallExecutor
from latchkey.domain.credentials import BUILT_IN_GRANTS, Credential, NewContextToken, Owner
from latchkey.domain.errors import Invalid
from latchkey.domain.ports import UnitsOfWork
from latchkey.domain.task import NewTask
from latchkey.domain.tool_call import IDEMPOTENCY_PERIOD, IdempotentCall, ToolInvocation, ToolOutcome
from tests.builders import NOW
from tests.contract.database.conftest import Replica

MILK = b'{"title":"Milk"}'


def dispatcher_of(units: UnitsOfWork) -> Dispatcher:
    return Dispatcher(units, lambda _call: None)


async def add(dispatcher: Dispatcher, credential: Credential, arguments: bytes = MILK) -> ToolOutcome:
    new = msgspec.json.decode(arguments, type=NewTask)
    return await ToolCallExecutor(dispatcher).execute(
        credential, ToolInvocation("add_task", arguments, "call-1"), add_task, new
    )


async def count_tasks(dispatcher: Dispatcher, owner: Owner) -> int:
    return len((await dispatcher.call(owner, list_tasks)).items)


@pytest.mark.parametrize("is_owner", [True, False])
async def test_concurrent_duplicate_calls_outside_a_turn_have_one_effect(
    replica: Replica, me: Owner, *, is_owner: bool
) -> None:
    dispatchers = [dispatcher_of(replica()) for _ in range(2)]
    minted = await dispatchers[0].call(me, mint_context_token, NewContextToken(list(BUILT_IN_GRANTS)))
    credential = me if is_owner else minted.secret

    outcomes = await asyncio.gather(*(add(dispatcher, credential) for dispatcher in dispatchers for _ in range(3)))

    assert {outcome.json for outcome in outcomes} == {outcomes[0].json}
    assert not outcomes[0].is_error
    assert await count_tasks(dispatchers[0], me) == 1


async def test_duplicate_of_failed_call_outside_a_turn_returns_the_first_error(replica: Replica, me: Owner) -> None:
    dispatcher = dispatcher_of(replica())
    failed = await ToolCallExecutor(dispatcher).record_failure(
        me, ToolInvocation("add_task", MILK, "call-1"), add_task, Invalid("A title is missing.")
    )

    assert (await add(dispatcher, me)).json == failed.json
    assert await count_tasks(dispatcher, me) == 0


async def test_idempotent_call_expired_after_24_hours_is_removed(units: UnitsOfWork, me: Owner, you: Owner) -> None:
    def call(key: str, age: timedelta) -> IdempotentCall:
        return IdempotentCall("owner", key, "0" * 64, "{}", is_error=False, created_at=NOW - age)

    for owner in (me, you):
        async with units.open(owner, "write") as uow:
            for key in ("a", "b"):
                await uow.idempotent_calls.add(call(key, IDEMPOTENCY_PERIOD))
            await uow.idempotent_calls.add(call("c", IDEMPOTENCY_PERIOD - timedelta(seconds=1)))
            await uow.commit()
    async with units.open(me, "write") as uow:
        assert await uow.idempotent_calls.find("owner", "a", NOW) is None
        await uow.idempotent_calls.add(call("a", timedelta()))
        await uow.commit()

    earlier = NOW - timedelta(seconds=2)
    for owner, kept in ((me, [True, False, True]), (you, [True, True, True])):
        async with units.open(owner, "read") as uow:
            rows = [await uow.idempotent_calls.find("owner", key, earlier) for key in "abc"]
        assert [row is not None for row in rows] == kept
