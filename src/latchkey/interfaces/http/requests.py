"""Request bodies: the right media type, JSON in UTF-8 by the rules of the declared type, and no name twice."""

import json
from collections.abc import Awaitable, Callable
from email.message import Message
from functools import cache, lru_cache
from typing import Annotated, Any, Concatenate, ParamSpec, TypeAlias, TypeVar
from urllib.parse import quote
from uuid import UUID

import msgspec
from litestar import Request
from litestar.datastructures import State
from litestar.params import BodyKwarg
from litestar.types import Receive
from litestar.typing import FieldDefinition

from latchkey.application.dispatcher import Dispatcher
from latchkey.application.turns.expire import with_expiry
from latchkey.domain.credentials import Owner
from latchkey.domain.errors import Malformed, TooLarge, UnsupportedMediaType, WrongUser
from latchkey.domain.ports import Identity, UnitOfWork
from latchkey.interfaces.auth import owner_of
from latchkey.interfaces.errors import invalid

T = TypeVar("T")

MAX_BYTES = 8 * 1024 * 1024
"""An artifact of 1 MiB fits, however its text is escaped."""
_DIGITS = 20
"""More than any length has that the server lets through."""
JSON = "application/json"
MERGE_PATCH = "application/merge-patch+json"

JsonBody: TypeAlias = Annotated[T, BodyKwarg(media_type=JSON)]
PatchBody: TypeAlias = Annotated[T, BodyKwarg(media_type=MERGE_PATCH)]
"""A merge patch (RFC 7396) has a media type of its own; plain JSON is taken for it too."""


def media_types(declared: FieldDefinition) -> tuple[str, ...]:
    """Those that the body of a handler may be sent as, given the handler's `data`."""
    kwarg = declared.kwarg_definition
    return (MERGE_PATCH, JSON) if isinstance(kwarg, BodyKwarg) and kwarg.media_type == MERGE_PATCH else (JSON,)


@lru_cache(64)
def check_media_type(content_type: str, taken: tuple[str, ...]) -> None:
    """Raises `UnsupportedMediaType`. RFC 8259 knows no `charset`; one that says UTF-8 is harmless."""
    if content_type in taken:
        return
    given = Message()
    given["content-type"] = content_type
    wanted = " or ".join(taken)
    if not content_type or given.get_content_type() not in taken:
        raise UnsupportedMediaType(f"Send the body as {wanted}, not {content_type or 'without a Content-Type'}.")
    if str(given.get_param("charset", "utf-8")).lower() not in {"utf-8", "utf8"}:
        raise UnsupportedMediaType(f"Send {wanted} in UTF-8, and in no other charset.")


async def read_body(announced: str, receive: Receive) -> bytes:
    """All of it, given its `Content-Length`. Raises `TooLarge`, before anything is read if it says so itself.

    Raises `Malformed` if there is none, or the client left before it was whole.
    """
    body, more = bytearray(), True
    size = int(announced[:_DIGITS]) if announced.isdecimal() else 0
    while more and max(size, len(body)) <= MAX_BYTES:
        message = await receive()
        if message["type"] != "http.request":
            raise Malformed("The body broke off.")
        body += message["body"]
        more = message.get("more_body", False)
    if max(size, len(body)) > MAX_BYTES:
        raise TooLarge(f"The body is larger than {MAX_BYTES} bytes.")
    if not body:
        raise Malformed("This needs a body in JSON, and there is none.")
    return bytes(body)


def decode(body: bytes, kind: Any) -> Any:
    """The body as its type. Raises `Malformed` for what is not JSON, and `Invalid` for what breaks the type's rules.

    Litestar's own decoding is lax ("5" passes for 5), and answers 500 for what is not UTF-8.
    """
    try:
        decoded = _decoder(kind).decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise invalid(error) from error
    if not _has_plain_names(body):
        _PAIRS.decode(body.decode())
    return decoded


@cache
def _decoder(kind: Any) -> msgspec.json.Decoder[Any]:
    return msgspec.json.Decoder(kind)


def _has_plain_names(body: bytes) -> bool:
    """Whether it can be seen at a glance, 5 us sooner, that no name is there twice: there are no more colons."""
    try:
        return len(_members(body)) == body.count(b":")
    except msgspec.ValidationError:
        return False


def _distinct(pairs: list[tuple[str, Any]]) -> None:
    """Of two members with one name, readers disagree which counts (RFC 8259, 4)."""
    if len({name for name, _ in pairs}) < len(pairs):
        raise Malformed("The body has two members with the same name in one object.")


_members = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode
_PAIRS = json.JSONDecoder(object_pairs_hook=_distinct)


P = ParamSpec("P")
R = TypeVar("R")


class ApiRequest(Request[Owner, None, State]):
    """What the controllers are given. Litestar takes their `data` from `body()` and `json()`."""

    _read: bytes | None = None

    async def call(
        self, use_case: Callable[Concatenate[UnitOfWork, P], Awaitable[R]], *args: P.args, **kwargs: P.kwargs
    ) -> R:
        """Run a use case for the owner. Raises any `Failure`."""
        dispatcher: Dispatcher = self.app.state.dispatcher
        return await dispatcher.call(self.user, use_case, *args, **kwargs)

    async def look(
        self, use_case: Callable[Concatenate[UnitOfWork, P], Awaitable[R]], *args: P.args, **kwargs: P.kwargs
    ) -> R:
        """The same, for what shows turns: those that nobody runs any more are seen to first."""
        dispatcher: Dispatcher = self.app.state.dispatcher
        return await with_expiry(dispatcher, self.user, use_case, *args, **kwargs)

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
    dispatcher: Dispatcher = request.app.state.dispatcher
    given = b", ".join(value for name, value in request.scope["headers"] if name == b"authorization").decode("latin-1")
    owner = await owner_of(given or None, identity)
    await dispatcher.acquire(owner)
    if request.path_params["user_id"] != owner.user_id:
        raise WrongUser("The path names another user than your token.")
    request.scope["user"] = owner
