"""What handlers declare: strict JSON bodies (RFC 8259), listing parameters, idempotency keys, and the request."""

import re
from functools import lru_cache
from hashlib import sha256
from typing import Annotated, Any, TypeAlias, TypeVar
from urllib.parse import quote
from uuid import UUID

import msgspec
from litestar import Request
from litestar.datastructures import ResponseHeader, State
from litestar.exceptions import InternalServerException
from litestar.exceptions.http_exceptions import RequestEntityTooLarge
from litestar.handlers import BaseRouteHandler
from litestar.params import BodyKwarg, HeaderParameter, QueryParameter
from msgspec import Meta

from latchkey.domain.credentials import Owner
from latchkey.domain.errors import Malformed, TooLarge
from latchkey.domain.page import Cursor, Limit
from latchkey.domain.turn import Idempotency
from latchkey.domain.values import PRINTABLE
from latchkey.interfaces.errors import check_distinct_members, check_media_type, check_storable, invalid
from latchkey.interfaces.http.litestar_internals import body_of

T = TypeVar("T")

MAX_BODY_BYTES = 8 * 1024 * 1024
"""An artifact of 1 MiB fits, even with every character of its text escaped."""
JSON = "application/json"
_ESCAPED_NUL = b"\\u0000"
MERGE_PATCH = "application/merge-patch+json"
ASSISTANT_HEADER = "latchkey-assistant"
"""Chooses the assistant where the body of a foreign protocol cannot."""

ClientId = Annotated[str, Meta(min_length=1, max_length=255, pattern=PRINTABLE)]
"""An id that a client has chosen, of a message or a run."""

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


def decode(body: bytes, decoder: "msgspec.json.Decoder[Any]") -> Any:
    """Decode a body strictly.

    Raises `Malformed`, also for duplicate member names, and `Invalid`, also for texts with NUL.
    """
    try:
        decoded = decoder.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise invalid(error) from error
    if not _has_only_distinct_members(body):
        check_distinct_members(body)
    if _ESCAPED_NUL in body:
        check_storable(msgspec.json.decode(body))
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


_members = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode


REPLAYED = ResponseHeader(
    name="Idempotency-Replayed",
    documentation_only=True,
    description="`true` if this is the response to an earlier request with the same key.",
)
IdempotencyKey = Annotated[
    str | None,
    HeaderParameter(
        name="Idempotency-Key",
        description="1 to 255 visible ASCII characters, quoted or bare. A retry with the same key and the same body is"
        " not processed again: it gets the response of the first request.",
        schema_extra={"pattern": r'^(?:[!#-~][!-~]{0,254}|"(?:[ !#-\[\]-~]|\\["\\]){1,255}")$'},
    ),
]

_BARE = re.compile(r"[\x21-\x7e]{1,255}")
_QUOTED = re.compile(r'"((?:[\x20\x21\x23-\x5b\x5d-\x7e]|\\["\\]){1,510})"')
_ESCAPED = re.compile(r"\\(.)")
_MAX_KEY_CHARS = 255

_encode = msgspec.json.Encoder(order="deterministic").encode


def idempotency_of(header: str, request: object) -> Idempotency:
    """Return the key and the fingerprint of the request.

    Requests that decode to equal values have the same fingerprint. Raises `Malformed` for an invalid key.
    """
    return Idempotency(_parse_key(header.strip()), sha256(_encode(request)).hexdigest())


def _parse_key(text: str) -> str:
    if quoted := _QUOTED.fullmatch(text):
        key = _ESCAPED.sub(r"\1", quoted[1])
    elif not text.startswith('"') and _BARE.fullmatch(text):
        key = text
    else:
        key = ""
    if not 1 <= len(key) <= _MAX_KEY_CHARS:
        raise Malformed('Idempotency-Key: send 1 to 255 visible ASCII characters, bare or as a quoted string: "…".')
    return key
