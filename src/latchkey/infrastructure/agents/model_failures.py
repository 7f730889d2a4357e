"""What can go wrong when a model is asked, and how the turn says it: one table."""

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import openai
from agents.exceptions import AgentsException, MaxTurnsExceeded, ModelBehaviorError

from latchkey.domain.errors import Failure, MaxSteps, ModelBadResponse, ModelUnavailable, RateLimited, ToolsUnavailable

LONGEST_RETRY_AFTER_S = 3600

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


def _rate_limited(error: openai.RateLimitError) -> Failure:
    asked = _seconds(error.response.headers.get("retry-after"))
    detail = "The model's provider asks to slow down: try again later."
    return RateLimited(detail) if asked is None else RateLimited(detail, retry_after=asked)


def _seconds(header: str | None) -> int | None:
    try:
        seconds = math.ceil(float(header or ""))
    except (ValueError, OverflowError):
        return None
    return seconds if 0 < seconds <= LONGEST_RETRY_AFTER_S else None


def _refused(error: openai.APIStatusError) -> Failure:
    status = error.status_code
    advice = _LOOK_AT.get(status, "see the provider's status page")
    return ModelUnavailable(f"The model's server answered with status {status}: {advice}.")


def _said(failure: type[Failure], detail: str) -> Callable[[Exception], Failure]:
    return lambda _: failure(detail)


_TABLE: list[tuple[type[Exception], Callable[..., Failure]]] = [
    (openai.RateLimitError, _rate_limited),
    (openai.APIStatusError, _refused),
    (openai.APITimeoutError, _said(ModelUnavailable, "The model did not answer in time.")),
    (
        openai.APIConnectionError,
        _said(ModelUnavailable, "The model's server cannot be reached: check OPENAI_BASE_URL."),
    ),
    (openai.APIResponseValidationError, _said(ModelBadResponse, "The model's answer has an unknown shape.")),
    (openai.APIError, _said(ModelUnavailable, "The model's server reported an error in the middle of its answer.")),
    (MaxTurnsExceeded, _said(MaxSteps, "The agent needed more steps than a turn may have: ask for less at once.")),
    (ModelBehaviorError, _said(ModelBadResponse, "The model's answer is incomplete or malformed.")),
    (AgentsException, _said(ToolsUnavailable, "The agent lost its tools in the middle of the turn.")),
]
