"""Use cases on context tokens."""

from datetime import timedelta

from msgspec import Struct

from latchkey.application.access import owner_only
from latchkey.domain.credentials import ContextToken, ContextTokenId, NewContextToken, TokenSecret
from latchkey.domain.page import Page, Window
from latchkey.domain.ports import UnitOfWork


class MintedToken(Struct, frozen=True):
    """A token and its secret, which is told this once and never again."""

    token: ContextToken
    secret: TokenSecret


@owner_only("write", stores=True)
async def mint_context_token(uow: UnitOfWork, new: NewContextToken) -> MintedToken:
    """Mint a token that opens what its grants say, for so many seconds."""
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
    """List context tokens, newest first, those that are expired or revoked too."""
    return await uow.context_tokens.page(window)


@owner_only("exclusive")
async def revoke_context_token(uow: UnitOfWork, token_id: ContextTokenId) -> None:
    """Revoke a token: when this has answered, no call under it commits any more."""
    await uow.context_tokens.revoke(token_id, uow.now)
