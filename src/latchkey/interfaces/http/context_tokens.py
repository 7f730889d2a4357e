"""Context tokens over HTTP."""

from uuid import UUID

from litestar import Controller, Response, delete, get, post
from msgspec import Struct
from msgspec.structs import asdict

from latchkey.application import tokens
from latchkey.domain.page import DEFAULT_LIMIT, Page, Window
from latchkey.domain.scope import ContextToken, ContextTokenId, NewContextToken
from latchkey.interfaces.http.paging import CursorQuery, LimitQuery
from latchkey.interfaces.http.request import ApiRequest


class FreshContextToken(ContextToken, Struct, frozen=True, kw_only=True):
    """A context token with its secret, which is shown this once."""

    token: str


class ContextTokenController(Controller):
    path = "/context-tokens"
    tags = ["context tokens"]

    @post()
    async def mint(self, request: ApiRequest, data: NewContextToken) -> Response[FreshContextToken]:
        minted = await request.call(tokens.mint_context_token, data)
        fresh = FreshContextToken(**asdict(minted.token), token=minted.secret.text)
        location = f"/api/{request.user.user_id}/context-tokens/{fresh.id}"
        return Response(fresh, status_code=201, headers={"location": location, "cache-control": "no-store"})

    @get()
    async def list(
        self, request: ApiRequest, limit: LimitQuery = DEFAULT_LIMIT, cursor: CursorQuery = None
    ) -> Page[ContextToken]:
        return await request.call(tokens.list_context_tokens, Window(limit, cursor))

    @delete("/{token_id:uuid}")
    async def revoke(self, request: ApiRequest, token_id: UUID) -> None:
        await request.call(tokens.revoke_context_token, ContextTokenId(token_id))
