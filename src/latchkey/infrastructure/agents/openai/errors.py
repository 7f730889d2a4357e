"""What can go wrong when a model is asked, and how the turn says it."""

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from agents.exceptions import AgentsException, MaxTurnsExceeded, ModelBehaviorError
from httpx2 import Headers, RequestError, TimeoutException

from latchkey.domain.errors import Failure, MaxSteps, ModelBadResponse, ModelUnavailable, RateLimited, ToolsUnavailable

LONGEST_RETRY_AFTER_S = 3600

_TOO_MANY_REQUESTS = 429
_LOOK_AT = {
    400: "check that the model and LATCHKEY_OPENAI_API fit the server",
    401: "check OPENAI_API_KEY",
    403: "check what OPENAI_API_KEY may use",
    404: "check LATCHKEY_MODEL, OPENAI_BASE_URL and LATCHKEY_OPENAI_API",
    422: "check that the model and LATCHKEY_OPENAI_API fit the server",
}


@contextmanager
def told_as_failures() -> Iterator[None]:
    """Raises the failure of the turn that an error means. One that means none is a bug, and stays as it is."""
    try:
        yield
    except Failure:
        raise
    except Exception as error:
        for kind, failure in _TABLE:
            if isinstance(error, kind):
                raise failure(error) from error
        raise


def refused(status: int, headers: Headers) -> Failure:
    """The model's server answered with an error."""
    if status == _TOO_MANY_REQUESTS:
        return _rate_limited(_seconds(headers.get("retry-after")))
    advice = _LOOK_AT.get(status, "see the provider's status page")
    return ModelUnavailable(f"The model's server answered with status {status}: {advice}.")


def given_up(code: object) -> Failure:
    """The model's server said so in the middle of an answer, under that code."""
    if code == "rate_limit_exceeded":
        return _rate_limited(None)
    return ModelUnavailable("The model's server reported an error in the middle of its answer.")


def cut_short() -> Failure:
    return ModelBadResponse("The model's answer was cut short: it or the conversation is too long.")


def broken_off() -> Failure:
    return ModelBadResponse("The model's answer broke off before its end.")


def unanswered(error: RequestError) -> Failure:
    """The model's server did not get as far as an answer, or fell silent in the middle of one."""
    if isinstance(error, TimeoutException):
        return ModelUnavailable("The model did not answer in time.")
    return ModelUnavailable("The model's server cannot be reached: check OPENAI_BASE_URL.")


def _rate_limited(asked: int | None) -> Failure:
    detail = "The model's provider asks to slow down: try again later."
    return RateLimited(detail) if asked is None else RateLimited(detail, retry_after=asked)


def _seconds(header: str | None) -> int | None:
    try:
        seconds = math.ceil(float(header or ""))
    except (ValueError, OverflowError):
        return None
    return seconds if 0 < seconds <= LONGEST_RETRY_AFTER_S else None


def _said(failure: type[Failure], detail: str) -> Callable[[Exception], Failure]:
    return lambda _: failure(detail)


_TABLE: list[tuple[type[Exception], Callable[..., Failure]]] = [
    (MaxTurnsExceeded, _said(MaxSteps, "The agent needed more steps than a turn may have: ask for less at once.")),
    (ModelBehaviorError, _said(ModelBadResponse, "The model's answer is incomplete or malformed.")),
    (AgentsException, _said(ToolsUnavailable, "The agent lost its tools in the middle of the turn.")),
]
