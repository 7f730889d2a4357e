"""Context tokens over HTTP."""

from uuid import UUID

from litestar import Controller, Response, delete, get, post
from litestar.di import NamedDependency
from litestar.params import FromPath
from msgspec import Struct
from msgspec.structs import asdict, replace

from latchkey.application import context_tokens as tokens
from latchkey.application.dispatcher import Dispatcher
from latchkey.domain.credentials import ContextToken, ContextTokenId, NewContextToken, RegisteredGrants
from latchkey.domain.errors import Invalid, NotFound
from latchkey.domain.page import DEFAULT_LIMIT, Page, Window
from latchkey.interfaces.http.requests import ApiRequest, CursorQuery, JsonBody, LimitQuery
from latchkey.interfaces.http.responses import LOCATION


class FreshContextToken(ContextToken, Struct, frozen=True, kw_only=True):
    """A context token with its secret, which no other response contains."""

    token: str


class ContextTokenController(Controller):
    path = "/context-tokens"
    tags = ("context tokens",)

    @post(response_headers=[LOCATION], failures=[NotFound])
    async def mint_context_token(
        self,
        request: ApiRequest,
        dispatcher: NamedDependency[Dispatcher],
        grants: NamedDependency[RegisteredGrants],
        data: JsonBody[NewContextToken],
    ) -> Response[FreshContextToken]:
        """Create a context token, which gives access to /mcp, limited to its grants.

        Only this response contains the secret, and no retry gets it again, so an `Idempotency-Key` is refused. If the
        response was lost, list the tokens and revoke the new one.
        """
        if request.headers.get("idempotency-key") is not None:
            raise Invalid.at(
                "Idempotency-Key",
                "Not supported here, because the secret of a token is not stored: send the request without the header",
            )
        grants.check(data.grants)
        minted = await dispatcher.call(request.user, tokens.mint_context_token, data)
        fresh = FreshContextToken(**asdict(minted.token), token=minted.secret.text)
        location = request.location_of("context-tokens", fresh.id)
        return Response(fresh, status_code=201, headers={"location": location})

    @get(essential=True)
    async def list_context_tokens(
        self,
        request: ApiRequest,
        dispatcher: NamedDependency[Dispatcher],
        grants: NamedDependency[RegisteredGrants],
        limit: LimitQuery = DEFAULT_LIMIT,
        cursor: CursorQuery = None,
    ) -> Page[ContextToken]:
        """List context tokens, newest first, including expired and revoked ones."""
        page = await dispatcher.call(request.user, tokens.list_context_tokens, Window(limit, cursor))
        return Page([replace(token, grants=grants.known(token.grants)) for token in page.items], page.next_cursor)

    @delete("/{token_id:uuid}", essential=True)
    async def revoke_context_token(
        self, request: ApiRequest, dispatcher: NamedDependency[Dispatcher], token_id: FromPath[UUID]
    ) -> None:
        """Revoke a context token. After the response, no call under this token commits."""
        await dispatcher.call(request.user, tokens.revoke_context_token, ContextTokenId(token_id))
