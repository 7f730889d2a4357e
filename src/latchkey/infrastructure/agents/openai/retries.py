"""When a model's server is asked again: as OpenAI's own client does, but for no longer than a turn can wait."""

import random

import httpx2

RETRIES = 2
LONGEST_RETRY_AFTER_S = 5.0
"""Whoever waits for the turn can decide better than we what to do meanwhile."""

_PASSING = {408, 409, 429}
_SERVER_ERROR = 500
_FIRST_PAUSE_S = 0.5
_JITTER = 0.25


def pause_s(response: httpx2.Response | None, retries: int) -> float | None:
    """How long to wait after `retries` of them, and an answer or none at all; None where there is to be no other."""
    if retries >= RETRIES:
        return None
    asked = _asked_s(response.headers) if response else 0.0
    if (response and not _may_pass(response)) or not asked <= LONGEST_RETRY_AFTER_S:
        return None
    return asked if asked > 0 else _FIRST_PAUSE_S * 2**retries * (1 - _JITTER * random.random())  # noqa: S311


def _may_pass(response: httpx2.Response) -> bool:
    """The header is what OpenAI's servers say of it themselves."""
    verdict = response.headers.get("x-should-retry")
    if verdict in ("true", "false"):
        return verdict == "true"
    return response.status_code in _PASSING or response.status_code >= _SERVER_ERROR


def _asked_s(headers: httpx2.Headers) -> float:
    """In seconds; without an end for what is no number, as a date."""
    try:
        if "retry-after-ms" in headers:
            return float(headers["retry-after-ms"]) / 1000
        return float(headers.get("retry-after", "0"))
    except ValueError:
        return float("inf")
