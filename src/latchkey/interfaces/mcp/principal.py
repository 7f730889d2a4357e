"""The authenticated principal of a request, as its handlers see it on every transport."""

from contextvars import ContextVar
from copy import copy
from typing import Any

from mcp.server.context import CallNext, HandlerResult, ServerRequestContext
from mcp.server.lowlevel import Server
from msgspec import Struct

from latchkey.application.dispatcher import Dispatcher
from latchkey.domain.credentials import Credential, Owner, Scope


class Principal(Struct, frozen=True):
    """The credential of a request, and its scope if the credential has already been verified."""

    credential: Credential
    scope: Scope | None = None

    @classmethod
    def of(cls, credential: Credential) -> "Principal":
        """Create a principal. An `Owner` has been verified by its JWT, a context token only the database can verify."""
        return cls(credential, Scope(credential.user_id) if isinstance(credential, Owner) else None)

    async def verify(self, dispatcher: Dispatcher) -> Scope:
        """Return the scope. Raises `Unauthenticated` for an invalid context token, and `Unavailable`."""
        if self.scope is not None:
            return self.scope
        return await dispatcher.resolve_scope(self.credential)


PRINCIPAL: ContextVar[Principal] = ContextVar("latchkey_mcp_principal")


def with_principal(server: Server[Any], principal: Principal) -> Server[Any]:
    """Return a view of the server for a connection whose requests all come from this principal."""

    async def set_principal(ctx: ServerRequestContext[Any, Any], call_next: CallNext) -> HandlerResult:
        token = PRINCIPAL.set(principal)
        try:
            return await call_next(ctx)
        finally:
            PRINCIPAL.reset(token)

    view = copy(server)
    view.middleware = [set_principal, *server.middleware]
    return view
