"""The face of every kind of failure, on every wire: one table, and a leaf has the face of its kind."""

import re

import msgspec

from latchkey.domain import errors
from latchkey.domain.errors import Failure, Forbidden, Invalid, Malformed


class MethodNotAllowed(Invalid):
    """The path is there, and does not take this method."""


class Misdirected(Forbidden):
    """The request is for another host than those that this service answers for (RFC 9110, 15.5.20)."""


_FACES: dict[type[Failure], tuple[int, str]] = {
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

_AT = re.compile(r"^(?P<what>.*?)(?: - at `(?P<path>.*)`)?$", re.DOTALL)


def status_of(failure: Failure) -> int:
    """The HTTP status of a failure."""
    return _face(failure)[0]


def title_of(failure: Failure) -> str:
    """What is the same for every failure of its kind (RFC 9457, 3.1.4)."""
    return _face(failure)[1]


def invalid(error: msgspec.DecodeError | UnicodeDecodeError | RecursionError) -> Invalid:
    """What msgspec found wrong, as a failure: unreadable input is `Malformed`, a broken rule `Invalid`."""
    if isinstance(error, RecursionError):
        return Malformed("The input is nested too deeply.")
    if not isinstance(error, msgspec.ValidationError):
        return Malformed(f"The body is not JSON in UTF-8: {error}.")
    found = _AT.match(str(error))
    what, path = (found["what"], found["path"] or "$") if found else (str(error), "$")
    if "matching regex" in what:
        what = "Expected text with something visible in it, without NUL and without lone surrogates"
    return Invalid.at(path, what)


def _face(failure: Failure) -> tuple[int, str]:
    return next(_FACES[kind] for kind in type(failure).__mro__ if kind in _FACES)
