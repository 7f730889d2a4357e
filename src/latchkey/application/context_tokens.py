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
async def mint_context_token(work: UnitOfWork, new: NewContextToken) -> MintedToken:
    """Mint a token that opens what its grants say, for so many seconds."""
    if new.conversation_id is not None:
        await work.conversations.get(new.conversation_id)
    token = ContextToken(
        id=ContextTokenId(work.new_id()),
        grants=sorted(set(new.grants)),
        conversation_id=new.conversation_id,
        turn_id=None,
        created_at=work.now,
        expires_at=work.now + timedelta(seconds=new.ttl_s),
    )
    secret = TokenSecret.mint(work.scope.user_id)
    await work.context_tokens.add(token, secret)
    return MintedToken(token, secret)


@owner_only("read")
async def list_context_tokens(work: UnitOfWork, window: Window) -> Page[ContextToken]:
    """List context tokens, newest first, those that are expired or revoked too."""
    return await work.context_tokens.page(window)


@owner_only("serial")
async def revoke_context_token(work: UnitOfWork, token_id: ContextTokenId) -> None:
    """Revoke a token: when this has answered, no call under it commits any more."""
    await work.context_tokens.revoke(token_id, work.now)
