"""Revocation: after a revoke has returned, no call with that token commits."""

import asyncio
from collections.abc import Awaitable, Callable
from datetime import timedelta

import pytest

from latchkey.application.context_tokens import mint_context_token, revoke_context_token
from latchkey.application.dispatcher import Dispatcher
from latchkey.application.tasks import add_task
from latchkey.domain.credentials import TASKS_WRITE, ContextToken, NewContextToken, Owner, TokenSecret
from latchkey.domain.errors import NotFound, Unauthenticated
from latchkey.domain.page import Window
from latchkey.domain.ports import Transaction, TransactionMode, UnitsOfWork
from latchkey.domain.task import NewTask
from tests.builders import NOW, a_context_token, a_conversation, a_task, a_turn
from tests.contract.database.conftest import Replica

Revoke = Callable[[Transaction, ContextToken], Awaitable[None]]

REVOKES: dict[str, Revoke] = {
    "the token": lambda uow, token: uow.context_tokens.revoke(token.id, uow.now),
    "its turn": lambda uow, token: uow.context_tokens.revoke_for_turn(token.turn_id, uow.now),  # type: ignore[arg-type]
    "its conversation": lambda uow, token: uow.conversations.delete(token.conversation_id, uow.now),  # type: ignore[arg-type]
}
CASES = [(revoke, mode) for revoke in REVOKES for mode in ("write", "exclusive")]
CASES.remove(("its conversation", "write"))
"""A conversation is deleted in an exclusive unit of work only, which waits for all calls under the user's tokens."""


@pytest.fixture
async def token(units: UnitsOfWork, me: Owner) -> ContextToken:
    """A token of a turn in a conversation."""
    conversation = a_conversation()
    turn = a_turn(conversation)
    async with units.open(me, "write") as uow:
        await uow.conversations.add(conversation)
        await uow.turns.add(turn)
        await uow.commit()
    return a_context_token(conversation_id=conversation.id, turn_id=turn.id)


@pytest.fixture
async def secret(units: UnitsOfWork, me: Owner, token: ContextToken) -> TokenSecret:
    secret = TokenSecret.mint(me.user_id)
    async with units.open(me, "write") as uow:
        await uow.context_tokens.add(token, secret)
        await uow.commit()
    return secret


async def count(units: UnitsOfWork, me: Owner) -> int:
    async with units.open(me, "read") as uow:
        return len((await uow.tasks.page(None, Window(200))).items)


@pytest.mark.parametrize(("revoke", "mode"), CASES)
async def test_revoke_waits_for_running_call(
    replica: Replica, me: Owner, token: ContextToken, secret: TokenSecret, revoke: str, mode: TransactionMode
) -> None:
    """From another process: the revoke returns only after the call has ended, and the call is complete."""
    here, there = replica(), replica()
    log: list[str] = []

    async def revoking() -> None:
        async with there.open(me, mode) as uow:
            await REVOKES[revoke](uow, token)
            await uow.commit()
        log.append("revoked")

    async with here.open(secret, "write") as uow:
        other = asyncio.create_task(revoking())
        # Each of these is a round trip: time enough for a revoke that would not wait.
        for title in range(50):
            await uow.tasks.add(a_task(f"{title}"))
        log.append("still under way")
        await uow.commit()
    await other

    assert log == ["still under way", "revoked"]
    assert await count(there, me) == 50


@pytest.mark.parametrize("revoke", REVOKES.values(), ids=REVOKES)
async def test_revoked_token_is_unauthenticated(
    replica: Replica, me: Owner, token: ContextToken, secret: TokenSecret, revoke: Revoke
) -> None:
    here, there = replica(), replica()
    async with here.open(secret, "write") as uow:
        await uow.commit()
    async with there.open(me, "exclusive") as uow:
        await revoke(uow, token)
        await uow.commit()

    for process in (here, there):
        with pytest.raises(Unauthenticated):
            async with process.open(secret, "read"):
                raise AssertionError


@pytest.mark.parametrize(("revoke", "mode"), CASES)
async def test_call_during_revoke_waits_and_is_refused(
    replica: Replica, me: Owner, token: ContextToken, secret: TokenSecret, revoke: str, mode: TransactionMode
) -> None:
    """It does not run with the state of the token before the revoke."""
    here, there = replica(), replica()

    async def calling() -> None:
        async with there.open(secret, "write") as uow:
            await uow.tasks.add(a_task("Too late"))
            await uow.commit()

    async with here.open(me, mode) as uow:
        await REVOKES[revoke](uow, token)
        await uow.tasks.page(None, Window())  # a write may wait for the next read, and with it the lock
        call = asyncio.create_task(calling())
        for _ in range(50):
            await uow.tasks.page(None, Window())
        assert not call.done()
        await uow.commit()

    with pytest.raises(Unauthenticated):
        await call
    assert await count(here, me) == 0


async def test_revoke_rollback_leaves_token_valid(
    units: UnitsOfWork, me: Owner, token: ContextToken, secret: TokenSecret
) -> None:
    async with units.open(me, "exclusive") as uow:
        await uow.context_tokens.revoke(token.id, uow.now)

    async with units.open(secret, "write") as uow:
        assert uow.scope.token_id == token.id


async def test_revoke_is_not_starved_by_concurrent_calls(
    replica: Replica, me: Owner, token: ContextToken, secret: TokenSecret
) -> None:
    """A call that starts after the revoke waits behind it, although an earlier call is still running."""
    here, there = replica(), replica()
    waiting: list[asyncio.Task[None]] = []

    async def revoking() -> None:
        async with there.open(me, "exclusive") as uow:
            await uow.context_tokens.revoke(token.id, uow.now)
            await uow.commit()

    async def calling() -> None:
        async with there.open(secret, "write") as uow:
            await uow.tasks.add(a_task("ConcurrentWrite"))
            await uow.commit()

    async with here.open(secret, "write") as uow:
        for waiter in (revoking, calling):
            waiting.append(asyncio.create_task(waiter()))
            for title in range(50):
                await uow.tasks.add(a_task(f"{title}"))
                # Each is a round trip, in which the waiting calls get as far as they can.
                await uow.tasks.page(None, Window(1))
        assert not any(task.done() for task in waiting)
        await uow.commit()

    outcomes = await asyncio.gather(*waiting, return_exceptions=True)
    assert [type(outcome) for outcome in outcomes] == [type(None), Unauthenticated]
    assert await count(here, me) == 100


async def test_concurrent_calls_none_commits_after_revoke(replica: Replica, me: Owner) -> None:
    """Eight callers in two processes: the calls that returned a result are exactly those that are stored."""
    dispatchers = [Dispatcher(replica(), lambda _call: None) for _ in range(2)]
    answered: list[str] = []

    async def caller(name: int, secret: TokenSecret, started: asyncio.Event) -> None:
        while True:
            try:
                task = await dispatchers[name % 2].call(secret, add_task, NewTask(f"{name}"))
            except Unauthenticated:
                return
            answered.append(str(task.id))
            started.set()

    for _ in range(3):
        minted = await dispatchers[0].call(me, mint_context_token, NewContextToken([TASKS_WRITE]))
        started = [asyncio.Event() for _ in range(8)]
        callers = [asyncio.create_task(caller(name, minted.secret, started[name])) for name in range(8)]
        await asyncio.gather(*(event.wait() for event in started))
        await dispatchers[1].call(me, revoke_context_token, minted.token.id)
        stored = await _ids(replica(), me)
        await asyncio.gather(*callers)

        assert await _ids(replica(), me) == stored
        assert set(answered) == stored


async def _ids(units: UnitsOfWork, me: Owner) -> set[str]:
    ids: set[str] = set()
    window: Window | None = Window(200)
    async with units.open(me, "read") as uow:
        while window:
            page = await uow.tasks.page(None, window)
            ids |= {str(task.id) for task in page.items}
            window = Window(200, page.next_cursor) if page.next_cursor else None
    return ids


async def test_revoke_twice_keeps_first_revoked_at(
    units: UnitsOfWork, me: Owner, token: ContextToken, secret: TokenSecret
) -> None:
    async with units.open(me, "exclusive") as uow:
        await uow.context_tokens.revoke(token.id, NOW)
        await uow.context_tokens.revoke(token.id, NOW + timedelta(days=1))
        await uow.context_tokens.revoke_for_turn(token.turn_id, NOW + timedelta(days=2))  # type: ignore[arg-type]
        assert (await uow.context_tokens.get(token.id)).revoked_at == NOW


async def test_revoke_of_unknown_token_is_not_found(units: UnitsOfWork, me: Owner) -> None:
    with pytest.raises(NotFound, match=r"There is no such context token\."):
        async with units.open(me, "exclusive") as uow:
            await uow.context_tokens.revoke(a_context_token().id, uow.now)


async def test_extend_expired_or_revoked_turn_token_changes_nothing(
    units: UnitsOfWork, me: Owner, token: ContextToken, secret: TokenSecret
) -> None:
    """Extending a lease does not make an expired or revoked token valid again."""
    later = NOW + timedelta(days=20_000)
    assert token.turn_id
    async with units.open(me, "exclusive") as uow:
        await uow.context_tokens.extend_for_turn(token.turn_id, later, uow.now)
        assert (await uow.context_tokens.get(token.id)).expires_at == later
        await uow.context_tokens.revoke(token.id, uow.now)
        await uow.context_tokens.extend_for_turn(token.turn_id, later + timedelta(days=1), uow.now)
        assert (await uow.context_tokens.get(token.id)).expires_at == later
        await uow.commit()
