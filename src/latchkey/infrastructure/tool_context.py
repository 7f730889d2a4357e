"""The context of a tool that runs outside a transaction: its scope, its deadline, and an HTTP client."""

import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from functools import cache
from time import monotonic
from types import TracebackType
from typing import Self

import httpx2

from latchkey.domain.credentials import Scope, UserId
from latchkey.domain.errors import Unavailable
from latchkey.domain.ports import ToolCallContext


class RedirectRefused(httpx2.RequestError):
    """The other service redirects to another host, which the tool has not chosen."""


class ToolContext(ToolCallContext):
    """What a tool outside a transaction gets in place of a unit of work. It is an async context manager.

    - `scope`: the user, and the conversation and the turn of the call if it has any.
    - `call_id`: an id of the call, unique among all users: hand it to other services as idempotency key.
    - `deadline`: when the call is stopped.
    """

    def __init__(self, scope: Scope, call_id: str, deadline: datetime) -> None:
        self.scope = scope
        self.call_id = call_id
        self.deadline = deadline
        self._ends_at = monotonic() + (deadline - datetime.now(UTC)).total_seconds()
        self._http: httpx2.AsyncClient | None = None

    @property
    def user_id(self) -> UserId:
        """The user for whom the tool acts."""
        return self.scope.user_id

    @property
    def remaining_s(self) -> float:
        """How many seconds are left until the deadline; 0 after it."""
        return max(0.0, self._ends_at - monotonic())

    @property
    def http(self) -> httpx2.AsyncClient:
        """An HTTP client for this call. Its timeout is the time that is left; it follows redirects within one host.

        A redirect to another host raises `RedirectRefused`, which is an `httpx2.RequestError`.
        """
        if self._http is None:
            self._http = httpx2.AsyncClient(
                verify=_certificates(),
                timeout=max(self.remaining_s, 0.001),
                follow_redirects=True,
                event_hooks={"response": [_refuse_foreign_redirect]},
            )
        return self._http

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._http is not None:
            await self._http.aclose()


class HttpToolContexts:
    """Opens contexts; implements the `ToolContexts` port."""

    @asynccontextmanager
    async def open(self, scope: Scope, call_id: str, deadline: datetime) -> AsyncIterator[ToolContext]:
        """Open a context. An error of its HTTP client that the tool has not handled becomes `Unavailable`."""
        try:
            async with ToolContext(scope, call_id, deadline) as context:
                yield context
        except httpx2.HTTPError as error:
            raise Unavailable("A service that this tool uses cannot be reached, or answered with an error.") from error


@cache
def _certificates() -> ssl.SSLContext:
    """Load the certificates once: it takes longer than most requests."""
    return httpx2.create_ssl_context()


async def _refuse_foreign_redirect(response: httpx2.Response) -> None:
    """Raises `RedirectRefused` for a redirect to another host or port, or from https to http."""
    if not response.has_redirect_location:
        return
    source, target = response.request.url, response.request.url.join(response.headers["location"])
    is_upgrade = (source.scheme, target.scheme) == ("http", "https") and (source.port, target.port) == (None, None)
    is_same = (source.scheme, source.port) == (target.scheme, target.port)
    if source.host != target.host or not (is_same or is_upgrade):
        raise RedirectRefused(f"The service redirects to {target.scheme}://{target.host}.", request=response.request)
