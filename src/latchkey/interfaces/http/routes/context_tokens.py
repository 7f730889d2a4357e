"""Context tokens over HTTP."""

from uuid import UUID

from litestar import Controller, Response, delete, get, post
from litestar.params import FromPath
from msgspec import Struct
from msgspec.structs import asdict

from latchkey.application import context_tokens as tokens
from latchkey.domain.credentials import ContextToken, ContextTokenId, NewContextToken
from latchkey.domain.errors import NotFound
from latchkey.domain.page import DEFAULT_LIMIT, Page, Window
from latchkey.interfaces.http.parameters import CursorQuery, LimitQuery
from latchkey.interfaces.http.requests import ApiRequest, JsonBody
from latchkey.interfaces.http.responses import LOCATION, JsonResponse


class FreshContextToken(ContextToken, Struct, frozen=True, kw_only=True):
    """A context token with its secret, which is shown this once."""

    token: str


class ContextTokenController(Controller):
    path = "/context-tokens"
    tags = ("context tokens",)

    @post(response_headers=[LOCATION], failures=[NotFound])
    async def mint_context_token(
        self, request: ApiRequest, data: JsonBody[NewContextToken]
    ) -> Response[FreshContextToken]:
        """Mint a context token, which opens /mcp as far as its grants go.

        Its secret is in this answer and in no other.
        """
        minted = await request.call(tokens.mint_context_token, data)
        fresh = FreshContextToken(**asdict(minted.token), token=minted.secret.text)
        location = request.location_of("context-tokens", fresh.id)
        return JsonResponse(fresh, status_code=201, headers={"location": location})

    @get()
    async def list_context_tokens(
        self, request: ApiRequest, limit: LimitQuery = DEFAULT_LIMIT, cursor: CursorQuery = None
    ) -> Page[ContextToken]:
        """List context tokens, newest first, those that are expired or revoked too."""
        return await request.call(tokens.list_context_tokens, Window(limit, cursor))

    @delete("/{token_id:uuid}")
    async def revoke_context_token(self, request: ApiRequest, token_id: FromPath[UUID]) -> None:
        """Revoke a context token: when this has answered, no call under it commits any more."""
        await request.call(tokens.revoke_context_token, ContextTokenId(token_id))
