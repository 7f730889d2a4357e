"""A request of the API: its user is the owner, and the one door stands open for them alone."""

from collections.abc import Awaitable, Callable
from typing import Any, Concatenate, ParamSpec, TypeVar

from litestar import Request
from litestar.connection import ASGIConnection
from litestar.datastructures import State
from litestar.handlers import BaseRouteHandler

from latchkey.application.application import Application
from latchkey.domain.errors import WrongUser
from latchkey.domain.ports import Identity, UnitOfWork
from latchkey.domain.scope import Owner
from latchkey.interfaces.bearer import owner_of

P = ParamSpec("P")
R = TypeVar("R")


class ApiRequest(Request[Owner, None, State]):
    """What the controllers are given."""

    async def call(
        self, use_case: Callable[Concatenate[UnitOfWork, P], Awaitable[R]], *args: P.args, **kwargs: P.kwargs
    ) -> R:
        """Run a use case for the owner. Raises any `Failure`."""
        application: Application = self.app.state.application
        return await application.call(self.user, use_case, *args, **kwargs)


async def require_owner(connection: ASGIConnection[Any, Any, Any, Any], _: BaseRouteHandler) -> None:
    """The path is open to the user whom the bearer token names, and to nobody else.

    Raises `Unauthenticated`, `Unavailable`, and `WrongUser` whether or not the user in the path exists.
    """
    identity: Identity = connection.app.state.identity
    owner = await owner_of(connection.headers.get("authorization"), identity)
    if connection.path_params["user_id"] != owner.user_id:
        raise WrongUser("The path names another user than your token.")
    connection.scope["user"] = owner
