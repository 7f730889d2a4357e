"""Failures in the shape of OpenAI's API."""

import re
from typing import Any

from latchkey.domain.errors import Failure
from latchkey.interfaces.errors import status_of

_PATH = re.compile(r"/api/[^/]*/openai/v1(?:/|\Z)")
_TOO_MANY_REQUESTS, _SERVER_ERROR, _UNAVAILABLE = 429, 500, 503


def is_openai_path(path: str) -> bool:
    """Whether clients of OpenAI's API send requests to this path."""
    return _PATH.match(path) is not None


def error_of(failure: Failure) -> tuple[dict[str, str], dict[str, Any]]:
    """Return the headers and the body for a failure.

    By default the SDKs repeat requests that fail with 408, 409, 429 or 5xx. The header `x-should-retry: false` prevents
    that where it cannot succeed, and where the message is stored: its response has an id.
    """
    status = status_of(failure)
    headers = {"content-type": "application/json"}
    if status not in {_TOO_MANY_REQUESTS, _UNAVAILABLE} or "response_id" in failure.members:
        headers["x-should-retry"] = "false"
    error = {"message": failure.detail, "type": _type_of(status), "param": None, "code": failure.code}
    return headers, {"error": error}


def _type_of(status: int) -> str:
    if status == _TOO_MANY_REQUESTS:
        return "rate_limit_error"
    return "server_error" if status >= _SERVER_ERROR else "invalid_request_error"
