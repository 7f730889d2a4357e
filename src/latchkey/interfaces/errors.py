"""The HTTP status and title of every kind of failure, in one table. A subclass has those of its nearest base class."""

import re

import msgspec

from latchkey.domain import errors
from latchkey.domain.errors import Failure, Forbidden, Invalid, Malformed


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

_MESSAGE = re.compile(r"^(?P<text>.*?)(?: - at `(?P<path>.*)`)?$", re.DOTALL)
"""The form of msgspec's validation messages."""


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
    match = _MESSAGE.match(str(error))
    text, path = (match["text"], match["path"] or "$") if match else (str(error), "$")
    if "matching regex" in text:
        text = "Expected text with at least one visible character, without NUL and without lone surrogates"
    return Invalid.at(path, text)


def _status_and_title(failure: Failure) -> tuple[int, str]:
    return next(_STATUS_AND_TITLE[kind] for kind in type(failure).__mro__ if kind in _STATUS_AND_TITLE)
