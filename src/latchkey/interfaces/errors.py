"""The HTTP status and title of every kind of failure, in one table, and the checks of JSON bodies that can fail.

A subclass has the status and title of its nearest base class. REST and MCP share the checks.
"""

import json
import re
from email.message import Message
from functools import lru_cache
from typing import Any, TypeVar

import msgspec

from latchkey.domain import errors
from latchkey.domain.errors import Failure, Forbidden, Invalid, Malformed, UnsupportedMediaType
from latchkey.domain.values import PLAIN, PRINTABLE, VISIBLE

T = TypeVar("T")


class MethodNotAllowed(Invalid):
    """The path exists and does not allow this method."""


class Misdirected(Forbidden):
    """The request is for a host that this service does not serve (RFC 9110, 15.5.20)."""


_STATUS_AND_TITLE: dict[type[Failure], tuple[int, str]] = {
    errors.Unauthenticated: (401, "Not authenticated"),
    errors.Forbidden: (403, "Forbidden"),
    errors.NotFound: (404, "Not found"),
    errors.Invalid: (422, "Invalid input"),
    errors.Malformed: (400, "Malformed input"),
    MethodNotAllowed: (405, "Method not allowed"),
    Misdirected: (421, "Misdirected request"),
    errors.TooLarge: (413, "Too large"),
    errors.UnsupportedMediaType: (415, "Unsupported media type"),
    errors.Conflict: (409, "Conflict"),
    errors.StaleVersion: (412, "Stale version"),
    errors.Exhausted: (429, "Limit reached"),
    errors.Unavailable: (503, "Unavailable"),
    errors.TurnFailed: (502, "The turn failed"),
    errors.ToolsUnavailable: (503, "The turn failed"),
    errors.RateLimited: (503, "The turn failed"),
    errors.DeadlinePassed: (504, "The turn failed"),
    Failure: (500, "Internal error"),
}

_MESSAGE = re.compile(r"^(?P<text>.*?)(?: - at (?:`key` in )?`(?P<path>.*)`)?$", re.DOTALL)
"""The form of msgspec's validation messages."""
_UNSTORABLE = re.compile("[\x00\ud800-\udfff]")
_RULES = {
    repr(PLAIN): "Expected text without NUL and without lone surrogates",
    repr(VISIBLE): "Expected text with at least one visible character, without NUL and without lone surrogates",
    repr(PRINTABLE): "Expected text without control characters and without lone surrogates",
}
"""The long patterns in words, by the form in which msgspec's messages have them."""


def status_of(failure: Failure) -> int:
    """Return the HTTP status of a failure."""
    return _status_and_title(failure)[0]


def title_of(failure: Failure) -> str:
    """Return the title, which is the same for every failure of a kind (RFC 9457, 3.1.4)."""
    return _status_and_title(failure)[1]


def invalid(error: msgspec.DecodeError | UnicodeDecodeError | RecursionError) -> Invalid:
    """Translate an error of msgspec's decoder: unreadable input is `Malformed`, a broken rule is `Invalid`."""
    if isinstance(error, RecursionError):
        return Malformed("The input is nested too deeply.")
    if not isinstance(error, msgspec.ValidationError):
        return Malformed(f"The body is not valid JSON in UTF-8: {error}.")
    return invalid_at("$", error)


def invalid_at(path: str, error: msgspec.ValidationError) -> Invalid:
    """Translate a validation error of a part of the body. `path` is the place of the part, such as `$.messages[0]`."""
    match = _MESSAGE.match(str(error))
    text, place = (match["text"], match["path"] or "$") if match else (str(error), "$")
    text = _RULES.get(text.partition(" matching regex ")[2], text)
    return Invalid.at(path + place.removeprefix("$"), text)


def convert_at(path: str, value: Any, type: type[T]) -> T:
    """Convert a part of the body, which is at this path, to a type. Raises `Invalid`."""
    try:
        return msgspec.convert(value, type)
    except msgspec.ValidationError as error:
        raise invalid_at(path, error) from error


def decode_at(path: str, raw: msgspec.Raw, type: type[T]) -> T:
    """Decode a part of the body, which is at this path, as a type. Raises `Invalid`."""
    try:
        return msgspec.json.decode(raw, type=type)
    except msgspec.ValidationError as error:
        raise invalid_at(path, error) from error


def _status_and_title(failure: Failure) -> tuple[int, str]:
    return next(_STATUS_AND_TITLE[kind] for kind in type(failure).__mro__ if kind in _STATUS_AND_TITLE)


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


def check_distinct_members(body: bytes) -> None:
    """Raises `Malformed` if an object of the JSON text has two members with the same name, or is nested too deeply.

    JSON readers disagree about which one counts (RFC 8259, 4). The text must be valid JSON in UTF-8.
    """
    try:
        _strict_decoder.decode(body.decode())
    except RecursionError as error:
        raise invalid(error) from error


def check_storable(value: Any) -> None:
    """Raises `Invalid`, with the path, for a text with NUL or a lone surrogate, which PostgreSQL cannot store."""
    remaining = [("$", value)]
    while remaining:
        path, item = remaining.pop()
        if isinstance(item, str) and _UNSTORABLE.search(item):
            raise Invalid.at(path, "Expected text without NUL and without lone surrogates")
        if isinstance(item, dict):
            remaining += [(path, name) for name in item]
            remaining += [(f"{path}.{name}", member) for name, member in item.items()]
        elif isinstance(item, list):
            remaining += [(f"{path}[{index}]", member) for index, member in enumerate(item)]


def _check_pairs(pairs: list[tuple[str, Any]]) -> None:
    if len({name for name, _ in pairs}) < len(pairs):
        raise Malformed("An object of the request body has two members with the same name: send each name once.")


_strict_decoder = json.JSONDecoder(object_pairs_hook=_check_pairs)
