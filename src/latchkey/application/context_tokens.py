"""Use cases on context tokens."""

from datetime import timedelta

from msgspec import Struct

from latchkey.application.access import owner_only
from latchkey.domain.credentials import ContextToken, ContextTokenId, NewContextToken, TokenSecret
from latchkey.domain.page import Page, Window
from latchkey.domain.ports import UnitOfWork


class MintedToken(Struct, frozen=True):
    """A new token with its secret. The secret is not stored and cannot be read again."""

    token: ContextToken
    secret: TokenSecret


@owner_only("write", stores=True)
async def mint_context_token(uow: UnitOfWork, new: NewContextToken) -> MintedToken:
    """Mint a context token with these grants, valid for `ttl_s` seconds."""
    if new.conversation_id is not None:
        await uow.conversations.get(new.conversation_id)
    token = ContextToken(
        id=ContextTokenId(uow.new_id()),
        grants=sorted(set(new.grants)),
        conversation_id=new.conversation_id,
        turn_id=None,
        created_at=uow.now,
        expires_at=uow.now + timedelta(seconds=new.ttl_s),
    )
    secret = TokenSecret.mint(uow.scope.user_id)
    await uow.context_tokens.add(token, secret)
    return MintedToken(token, secret)


@owner_only("read")
async def list_context_tokens(uow: UnitOfWork, window: Window) -> Page[ContextToken]:
    """List context tokens, newest first, including those that are expired or revoked."""
    return await uow.context_tokens.page(window)


@owner_only("exclusive")
async def revoke_context_token(uow: UnitOfWork, token_id: ContextTokenId) -> None:
    """Revoke a token: after the response, no call with this token commits."""
    await uow.context_tokens.revoke(token_id, uow.now)
