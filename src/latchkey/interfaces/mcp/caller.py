"""Who a request comes from, as its handler sees them on every transport."""

from contextvars import ContextVar
from copy import copy
from typing import Any

from mcp.server.context import CallNext, HandlerResult, ServerRequestContext
from mcp.server.lowlevel import Server
from msgspec import Struct

from latchkey.application.application import Application
from latchkey.domain.errors import Failure
from latchkey.domain.scope import Credential, Owner, Scope


class Caller(Struct):
    """A credential, whether it is known to be alive, and the failure if it is not or nobody could tell."""

    credential: Credential
    vouched: bool = False
    refused: Failure | None = None

    @classmethod
    def holding(cls, credential: Credential) -> "Caller":
        """An identity provider has vouched for a person; a context token only the database can vouch for."""
        return cls(credential, vouched=isinstance(credential, Owner))

    async def scope(self, application: Application) -> Scope:
        """What they may see. Raises `Unauthenticated` for a token that opens nothing, and `Unavailable`."""
        if isinstance(self.credential, Owner):
            return Scope(self.credential.user_id)
        scope = await application.scope_of(self.credential)
        self.vouched = True
        return scope


CALLER: ContextVar[Caller] = ContextVar("latchkey_mcp_caller")


def seen_by(server: Server[Any], credential: Credential) -> Server[Any]:
    """The same server, as a connection has it whose every request comes with that credential."""

    async def introduce(ctx: ServerRequestContext[Any, Any], call_next: CallNext) -> HandlerResult:
        token = CALLER.set(Caller.holding(credential))
        try:
            return await call_next(ctx)
        finally:
            CALLER.reset(token)

    view = copy(server)
    view.middleware = [introduce, *server.middleware]
    return view
