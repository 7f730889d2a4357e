"""Request bodies: the right media type, JSON in UTF-8 by the rules of the declared type, and no name twice."""

import json
from email.message import Message
from functools import cache, lru_cache
from typing import Annotated, Any, TypeAlias, TypeVar

import msgspec
from litestar.params import BodyKwarg
from litestar.types import Receive
from litestar.typing import FieldDefinition

from latchkey.domain.errors import Malformed, TooLarge, UnsupportedMediaType
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
