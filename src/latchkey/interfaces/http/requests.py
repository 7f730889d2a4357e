"""What handlers declare: strict JSON bodies (RFC 8259), the query parameters of listings, and the request itself."""

import json
from email.message import Message
from functools import lru_cache
from typing import Annotated, Any, TypeAlias, TypeVar
from urllib.parse import quote
from uuid import UUID

import msgspec
from litestar import Request
from litestar.datastructures import State
from litestar.exceptions import InternalServerException
from litestar.exceptions.http_exceptions import RequestEntityTooLarge
from litestar.handlers import BaseRouteHandler
from litestar.params import BodyKwarg, QueryParameter

from latchkey.domain.credentials import Owner
from latchkey.domain.errors import Malformed, TooLarge, UnsupportedMediaType
from latchkey.domain.page import Cursor, Limit
from latchkey.interfaces.errors import invalid
from latchkey.interfaces.http.litestar_internals import body_of

T = TypeVar("T")

MAX_BODY_BYTES = 8 * 1024 * 1024
"""An artifact of 1 MiB fits, even with every character of its text escaped."""
JSON = "application/json"
MERGE_PATCH = "application/merge-patch+json"

JsonBody: TypeAlias = Annotated[T, BodyKwarg(media_type=JSON)]
PatchBody: TypeAlias = Annotated[T, BodyKwarg(media_type=MERGE_PATCH)]
"""A JSON merge patch (RFC 7396), which plain `application/json` may announce too."""


def _query_parameter_of(domain_type: Any) -> QueryParameter:
    """Return a query parameter with the constraints of a domain type: Litestar ignores `msgspec.Meta` of parameters."""
    (meta,) = domain_type.__metadata__
    return QueryParameter(ge=meta.ge, le=meta.le, max_length=meta.max_length, description=meta.description)


LimitQuery = Annotated[int, _query_parameter_of(Limit)]
CursorQuery = Annotated[str | None, _query_parameter_of(Cursor)]


class ApiRequest(Request[Owner, None, State]):
    """A request below `/api/{user_id}`: its `user` is the authenticated owner, its body is decoded strictly.

    Litestar calls `json` for the `data` parameter of a handler. Its own JSON decoding accepts "5" for 5 and answers
    500 to a body that is not UTF-8.
    """

    @property
    def request_id(self) -> str:
        """The id under which the request is logged."""
        return str(self.scope.get("request_id", ""))

    async def body(self) -> bytes:
        """Read the whole body.

        Raises `TooLarge` beyond `MAX_BODY_BYTES`, and `Malformed` if the body is empty or the client disconnected
        before its end.
        """
        try:
            body = await super().body()
        except RequestEntityTooLarge as error:
            raise TooLarge(f"The request body is larger than {MAX_BODY_BYTES} bytes, which is the limit.") from error
        except InternalServerException as error:
            raise Malformed("The client disconnected before the end of the request body.") from error
        if not body:
            raise Malformed("Missing request body: this operation needs a JSON body.")
        return body

    async def json(self) -> Any:
        """Decode the body as the type that the handler declares.

        Raises what `body` raises, `UnsupportedMediaType`, `Malformed` for a body that is not JSON, and `Invalid` for
        a body that breaks the rules of the type.
        """
        media_types, decoder = _declared_body(self.route_handler)
        check_media_type(self.headers.get("content-type", ""), media_types)
        return decode(await self.body(), decoder)

    def location_of(self, collection: str, id: UUID) -> str:
        """Return the path of one of the user's resources, for a `Location` header."""
        return f"/api/{quote(self.user.user_id, safe='')}/{collection}/{id}"


def media_types_of(declared: str | None) -> tuple[str, ...]:
    """Return the media types that a body may be sent as, given the declared one."""
    return (MERGE_PATCH, JSON) if declared == MERGE_PATCH else (JSON,)


@lru_cache(64)
def check_media_type(content_type: str, accepted: tuple[str, ...]) -> None:
    """Raises `UnsupportedMediaType` unless the `Content-Type` is accepted, with or without `charset=utf-8`."""
    if content_type in accepted:
        return
    header = Message()
    header["content-type"] = content_type
    expected = " or ".join(accepted)
    if not content_type:
        raise UnsupportedMediaType(f"Missing Content-Type header: send the body as {expected}.")
    if header.get_content_type() not in accepted:
        raise UnsupportedMediaType(f"Unsupported media type {content_type}: send the body as {expected}.")
    if str(header.get_param("charset", "utf-8")).lower() not in {"utf-8", "utf8"}:
        raise UnsupportedMediaType(f"Unsupported charset: send {expected} in UTF-8.")


def decode(body: bytes, decoder: "msgspec.json.Decoder[Any]") -> Any:
    """Decode a body strictly. Raises `Malformed`, also for duplicate member names, and `Invalid`."""
    try:
        decoded = decoder.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise invalid(error) from error
    if not _has_only_distinct_members(body):
        _strict_decoder.decode(body.decode())
    return decoded


@lru_cache(256)
def _declared_body(handler: BaseRouteHandler) -> tuple[tuple[str, ...], "msgspec.json.Decoder[Any]"]:
    declared = body_of(handler)
    if declared is None:
        raise TypeError(f"{handler} declares no body")
    return media_types_of(declared.media_type), msgspec.json.Decoder(declared.annotation)


def _has_only_distinct_members(body: bytes) -> bool:
    """Check quickly for duplicate names: as many colons as distinct top-level members means that there are none."""
    try:
        return len(_members(body)) == body.count(b":")
    except msgspec.ValidationError:
        return False


def _check_distinct(pairs: list[tuple[str, Any]]) -> None:
    """Raises `Malformed` for duplicate names: JSON readers disagree about which one counts (RFC 8259, 4)."""
    if len({name for name, _ in pairs}) < len(pairs):
        raise Malformed("An object of the request body has two members with the same name: send each name once.")


_members = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode
_strict_decoder = json.JSONDecoder(object_pairs_hook=_check_distinct)
