"""Who a request comes from, as its handler sees them on every transport."""

from collections.abc import Callable
from contextvars import ContextVar
from copy import copy
from typing import Any

from mcp.server.context import CallNext, HandlerResult, ServerRequestContext
from mcp.server.lowlevel import Server
from msgspec import Struct

from latchkey.application.dispatcher import Dispatcher
from latchkey.domain.credentials import Credential, Owner, Scope
from latchkey.domain.errors import Failure


class Principal(Struct):
    """A credential, the scope that it is known to open, whether it was found alive, and the failure if not."""

    credential: Credential
    known: Scope | None = None
    vouched: bool = False
    refused: Failure | None = None

    @classmethod
    def holding(cls, credential: Credential) -> "Principal":
        """An identity provider has vouched for a person; a context token only the database can vouch for."""
        known = Scope(credential.user_id) if isinstance(credential, Owner) else None
        return cls(credential, known, vouched=known is not None)

    async def scope(self, dispatcher: Dispatcher) -> Scope:
        """What they may see. Raises `Unauthenticated` for a token that opens nothing, and `Unavailable`."""
        if self.known is None:
            self.known = await dispatcher.resolve_scope(self.credential)
            self.vouched = True
        return self.known


PRINCIPAL: ContextVar[Principal] = ContextVar("latchkey_mcp_caller")


def with_principal(server: Server[Any], principal: Callable[[], Principal]) -> Server[Any]:
    """The same server, as a connection has it whose every request comes from such a caller."""

    async def introduce(ctx: ServerRequestContext[Any, Any], call_next: CallNext) -> HandlerResult:
        token = PRINCIPAL.set(principal())
        try:
            return await call_next(ctx)
        finally:
            PRINCIPAL.reset(token)

    view = copy(server)
    view.middleware = [introduce, *server.middleware]
    return view
