"""A request of the API: its user is the owner, and the one door stands open for them alone."""

from collections.abc import Awaitable, Callable
from typing import Any, Concatenate, ParamSpec, TypeVar
from urllib.parse import quote
from uuid import UUID

from litestar import Request
from litestar.datastructures import State

from latchkey.application.application import Application
from latchkey.application.recovery import settled
from latchkey.domain.errors import WrongUser
from latchkey.domain.ports import Identity, UnitOfWork
from latchkey.domain.scope import Owner
from latchkey.interfaces.bearer import owner_of
from latchkey.interfaces.http.body import check_media_type, decode, media_types, read_body

P = ParamSpec("P")
R = TypeVar("R")


class ApiRequest(Request[Owner, None, State]):
    """What the controllers are given. Litestar takes their `data` from `body()` and `json()`."""

    _read: bytes | None = None

    async def call(
        self, use_case: Callable[Concatenate[UnitOfWork, P], Awaitable[R]], *args: P.args, **kwargs: P.kwargs
    ) -> R:
        """Run a use case for the owner. Raises any `Failure`."""
        application: Application = self.app.state.application
        return await application.call(self.user, use_case, *args, **kwargs)

    async def look(
        self, use_case: Callable[Concatenate[UnitOfWork, P], Awaitable[R]], *args: P.args, **kwargs: P.kwargs
    ) -> R:
        """The same, for what shows turns: those that nobody runs any more are seen to first."""
        application: Application = self.app.state.application
        return await settled(application, self.user, use_case, *args, **kwargs)

    @property
    def id(self) -> str:
        """Under which it is logged."""
        return str(self.scope.get("request_id", ""))

    async def body(self) -> bytes:
        """All of it, as often as Litestar asks. Raises what `read_body` does.

        Litestar's own makes a mapping of all headers first, and streams: 6 us of a call.
        """
        if self._read is None:
            self._read = await read_body(self._given(b"content-length"), self.receive)
        return self._read

    async def json(self) -> Any:
        """The body as the type that the handler declares. Raises `UnsupportedMediaType`, `Malformed` and `Invalid`."""
        declared = self.route_handler.parsed_fn_signature.parameters["data"]
        check_media_type(self._given(b"content-type"), media_types(declared))
        return decode(await self.body(), declared.annotation)

    def _given(self, name: bytes) -> str:
        """The value of a header that was checked to be there once, or never."""
        return next((value for given, value in self.scope["headers"] if given == name), b"").decode("latin-1")

    def location_of(self, collection: str, id: UUID) -> str:
        """The path of a thing of the owner's, for a `Location` header."""
        return f"/api/{quote(self.user.user_id, safe='')}/{collection}/{id}"


async def check_owner(request: Request[Any, Any, Any]) -> None:
    """The path is open to the user whom the bearer token names, as often as they may, and to nobody else.

    Raises `Unauthenticated`, `Unavailable`, `Exhausted`, and `WrongUser` whether or not the user in the path exists.
    """
    identity: Identity = request.app.state.identity
    application: Application = request.app.state.application
    given = b", ".join(value for name, value in request.scope["headers"] if name == b"authorization").decode("latin-1")
    owner = await owner_of(given or None, identity)
    await application.admit(owner)
    if request.path_params["user_id"] != owner.user_id:
        raise WrongUser("The path names another user than your token.")
    request.scope["user"] = owner
