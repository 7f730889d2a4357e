"""Contract of the context token repository; `test_credentials` tests what tokens give access to."""

import pytest

from latchkey.domain.credentials import BUILT_IN_GRANTS, Owner, TokenSecret
from latchkey.domain.errors import Conflict
from latchkey.domain.page import Window
from latchkey.domain.ports import UnitsOfWork
from tests.builders import NOW, a_context_token, a_conversation, a_task, a_turn
from tests.contract.database.pagination import assert_pages, assert_refuses


async def test_context_token_round_trip(units: UnitsOfWork, me: Owner) -> None:
    conversation = a_conversation()
    turn = a_turn(conversation)
    token = a_context_token(
        grants=sorted(BUILT_IN_GRANTS), conversation_id=conversation.id, turn_id=turn.id, revoked_at=NOW
    )
    async with units.open(me, "write") as uow:
        await uow.conversations.add(conversation)
        await uow.turns.add(turn)
        await uow.context_tokens.add(token, TokenSecret.mint(me.user_id))
        await uow.commit()

    async with units.open(me, "read") as uow:
        assert await uow.context_tokens.get(token.id) == token


async def test_context_token_pagination_includes_expired_and_revoked(units: UnitsOfWork, me: Owner) -> None:
    made = [a_context_token(), a_context_token(revoked_at=NOW), a_context_token(expires_at=NOW), a_context_token()]
    async with units.open(me, "write") as uow:
        for token in made:
            await uow.context_tokens.add(token, TokenSecret.mint(me.user_id))
        await uow.tasks.add(a_task())
        await uow.tasks.add(a_task())
        foreign = (await uow.tasks.page(None, Window(1))).next_cursor

        await assert_pages(uow.context_tokens.page, made[::-1])
        await assert_refuses(uow.context_tokens.page, foreign)


async def test_context_token_secret_duplicate_is_refused(units: UnitsOfWork, me: Owner) -> None:
    secret = TokenSecret.mint(me.user_id)
    with pytest.raises(Conflict):  # noqa: PT012 # a unit of work is one thing
        async with units.open(me, "write") as uow:
            for _ in range(2):
                await uow.context_tokens.add(a_context_token(), secret)
            await uow.commit()
