"""Maps the errors of OpenAI's client and of the Agents SDK to the failures of a turn."""

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from agents.exceptions import AgentsException, MaxTurnsExceeded, ModelBehaviorError
from httpx2 import Headers
from openai import APIConnectionError, APIStatusError, APITimeoutError

from latchkey.domain.errors import Failure, ModelUnavailable
from latchkey.infrastructure.agents.model_failures import (
    MAX_REPORTED_RETRY_AFTER_S,
    TOO_MANY_REQUESTS,
    error_status,
    malformed_answer,
    max_steps_exceeded,
    rate_limited,
    tools_lost,
)

_ADVICE = {
    400: "check that the model and LATCHKEY_OPENAI_API fit the server",
    401: "check OPENAI_API_KEY",
    403: "check what OPENAI_API_KEY may use",
    404: "check LATCHKEY_MODEL, OPENAI_BASE_URL and LATCHKEY_OPENAI_API",
    422: "check that the model and LATCHKEY_OPENAI_API fit the server",
}

_FAILURES: list[tuple[type[Exception], Callable[[], Failure]]] = [
    (MaxTurnsExceeded, max_steps_exceeded),
    (ModelBehaviorError, malformed_answer),
    (AgentsException, tools_lost),
]


@contextmanager
def sdk_errors_as_failures() -> Iterator[None]:
    """Raise the failure that an error of the Agents SDK means. Any other error is a bug and passes unchanged."""
    try:
        yield
    except Failure:
        raise
    except Exception as error:
        for error_type, failure in _FAILURES:
            if isinstance(error, error_type):
                raise failure() from error
        raise


def request_failure(error: APIConnectionError | APIStatusError) -> Failure:
    """The model's server sent no answer, or an error instead of one."""
    if isinstance(error, APIStatusError):
        return _status_failure(error.status_code, error.response.headers)
    if isinstance(error, APITimeoutError):
        return timeout()
    return ModelUnavailable("The model's server cannot be reached: check OPENAI_BASE_URL.")


def timeout() -> Failure:
    return ModelUnavailable("The model did not answer in time.")


def error_event(code: object) -> Failure:
    """The model's server reported an error with this code inside its answer."""
    if code == "rate_limit_exceeded":
        return rate_limited()
    return ModelUnavailable("The model's server reported an error in the middle of its answer.")


def _status_failure(status: int, headers: Headers) -> Failure:
    if status == TOO_MANY_REQUESTS:
        return rate_limited(_parse_retry_after(headers.get("retry-after")))
    return error_status(status, _ADVICE.get(status))


def _parse_retry_after(header: str | None) -> int | None:
    """Whole seconds, or None unless they are a number between 1 and `MAX_REPORTED_RETRY_AFTER_S`."""
    try:
        seconds = math.ceil(float(header or ""))
    except (ValueError, OverflowError):
        return None
    return seconds if 0 < seconds <= MAX_REPORTED_RETRY_AFTER_S else None
