"""Errors that a model's server reports, by status or inside an answer, as the failures of a turn."""

import json
import math
import re
from collections.abc import Iterator
from typing import Any

from httpx2 import Headers
from openai import APIConnectionError, APIStatusError, APITimeoutError

from latchkey.domain.errors import Failure, ModelUnavailable
from latchkey.infrastructure.agents.model_failures import (
    MAX_REPORTED_RETRY_AFTER_S,
    TOO_MANY_REQUESTS,
    context_too_long,
    error_status,
    rate_limited,
)

ERROR_BODY = "latchkey.error_body"
"""The key in `response.extensions` of the first bytes of the body of an error."""

_ADVICE = {
    400: "check that the model and LATCHKEY_OPENAI_API fit the server",
    401: "check OPENAI_API_KEY",
    403: "check what OPENAI_API_KEY may use",
    404: "check LATCHKEY_MODEL, OPENAI_BASE_URL and LATCHKEY_OPENAI_API",
    422: "check that the model and LATCHKEY_OPENAI_API fit the server",
}
_RATE_LIMIT_STATUSES = {TOO_MANY_REQUESTS, 529}
_RATE_LIMIT = re.compile(
    r"rate.?limit|too.?many.?requests|resource.?exhausted|throttl|quota.?exceeded|insufficient.?quota|slow.?down",
    re.IGNORECASE,
)
_TOO_LONG = re.compile(
    r"context.{0,12}(length|size|window|limit|overflow)|exceed_context|(prompt|input|conversation) is too long"
    r"|too many tokens|max_prompt_tokens|(prompt|input|inputs).{0,40}tokens?.{0,40}(exceed|longer|too large|must)"
    r"|reduce the length of the (messages|prompt|input)",
    re.IGNORECASE,
)
_TOKENS = re.compile(r"\b\d[\d,]{2,9}\b")
_PROMPT_FRACTION = 0.9
_MAX_MESSAGE_CHARS = 300
_MAX_DEPTH = 4
_MAX_ITEMS = 8
_NESTED = ("error", "errors", "detail", "details", "response", "data")
_TEXTS = ("message", "error", "detail", "msg", "error_description", "error_message", "reason", "title")
_CODES = ("code", "type", "status", "error_type", "error_code", "status_code")


class ModelServerError(Exception):
    """What the model's server reported: a status or a code, and its own words. For the log only.

    The words are bounded and may quote the conversation or a key: clients never see them.
    """

    def __init__(self, status: int | None, codes: list[str], message: str) -> None:
        super().__init__(status, codes, message)
        self.status = status
        self.codes = codes
        self.message = message

    def __str__(self) -> str:
        status = [f"status {self.status}"] if self.status else []
        return ": ".join([*status, *self.codes, self.message]) or "no words"

    def redact(self, secret: str) -> None:
        """Remove a secret that the server has quoted."""
        self.message = self.message.replace(secret, "***")
        self.codes = [code.replace(secret, "***") for code in self.codes]


def request_failure(error: APIConnectionError | APIStatusError) -> Failure:
    """The model's server sent no answer, or an error instead of one."""
    if isinstance(error, APIStatusError):
        body: bytes = error.response.extensions.get(ERROR_BODY, b"")
        report = _report(_decoded(body), error.status_code)
        return _caused_by(report, _status_failure(report, error.status_code, error.response.headers))
    if isinstance(error, APITimeoutError):
        failure = timeout()
    else:
        failure = ModelUnavailable("The model's server cannot be reached: check OPENAI_BASE_URL.")
    failure.__cause__ = error
    return failure


def timeout() -> Failure:
    return ModelUnavailable("The model did not answer in time.")


def error_event(report: Any) -> Failure:
    """The model's server reported an error of any shape inside its answer."""
    error = _report(report, None)
    if _is_rate_limit(error):
        return _caused_by(error, rate_limited())
    if _is_too_long(error):
        return _caused_by(error, context_too_long())
    return _caused_by(
        error, ModelUnavailable("The model's server reported an error instead of the rest of its answer.")
    )


def is_error(event: dict[str, Any]) -> bool:
    """Whether an event or a body is an error and no part of an answer."""
    if event.get("error") or event.get("errors"):
        return True
    if event.get("object") == "error" or event.get("type") in {"error", "response.error"}:
        return True
    is_answer = any(name in event for name in ("choices", "output", "response", "type", "usage", "delta", "item"))
    return not is_answer and any(event.get(name) for name in ("detail", "message", "msg", "error_message"))


def _caused_by(error: ModelServerError, failure: Failure) -> Failure:
    failure.__cause__ = error
    return failure


def _status_failure(error: ModelServerError, status: int, headers: Headers) -> Failure:
    if _is_rate_limit(error):
        return rate_limited(_parse_retry_after(headers.get("retry-after")))
    if _is_too_long(error):
        return context_too_long()
    return error_status(status, _ADVICE.get(status))


def window_fraction(failure: Failure) -> float | None:
    """How much of the request fits into the context window, by the numbers in the server's words; None without them.

    A part of the window is left for the answer.
    """
    error = failure.__cause__
    message = error.message if isinstance(error, ModelServerError) else ""
    numbers = sorted({int(number.replace(",", "")) for number in _TOKENS.findall(message)})
    is_known = len(numbers) > 1 and numbers[0] > 0
    return _PROMPT_FRACTION * numbers[0] / numbers[-1] if is_known else None


def _is_too_long(error: ModelServerError) -> bool:
    return any(_TOO_LONG.search(text) for text in [*error.codes, error.message])


def _is_rate_limit(error: ModelServerError) -> bool:
    if error.status in _RATE_LIMIT_STATUSES or any(code in {"429", "529"} for code in error.codes):
        return True
    return any(_RATE_LIMIT.search(text) for text in [*error.codes, error.message])


def _report(value: Any, status: int | None) -> ModelServerError:
    codes: list[str] = []
    texts: list[str] = []
    for code, text in _words(value, 0):
        codes += [code] if code and code not in codes and code not in {"error", "None"} else []
        texts += [text] if text and text not in texts else []
    return ModelServerError(status, codes[:_MAX_ITEMS], _bounded(" ".join(texts)))


def _words(value: Any, depth: int) -> Iterator[tuple[str, str]]:
    """The codes and the texts of an error, outermost first. Servers nest errors, or send them as JSON in text."""
    if isinstance(value, str):
        inner = _decoded(value.encode("utf-8", "replace"))
        if not isinstance(inner, dict | list):
            yield "", value
            return
        value = inner
    if depth > _MAX_DEPTH:
        return
    if isinstance(value, dict):
        codes = [value.get(name) for name in _CODES]
        yield from ((_bounded(str(code)), "") for code in codes if type(code) in {str, int})
        texts = [text for name in _TEXTS if isinstance(text := value.get(name), str)]
        value = texts + [nested for name in _NESTED if isinstance(nested := value.get(name), dict | list)]
    if isinstance(value, list):
        for item in value[:_MAX_ITEMS]:
            yield from _words(item, depth + 1)


def _decoded(body: bytes) -> Any:
    """The JSON of a body, or its text: a body that is cut at its limit is no JSON."""
    text = body.decode("utf-8", "replace")
    if not text.lstrip().startswith(("{", "[")):
        return text
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return " " + text


def _bounded(text: str) -> str:
    printable = "".join(character if character.isprintable() else " " for character in text[: 4 * _MAX_MESSAGE_CHARS])
    return " ".join(printable.split())[:_MAX_MESSAGE_CHARS]


def _parse_retry_after(header: str | None) -> int | None:
    """Whole seconds, or None unless they are a number between 1 and `MAX_REPORTED_RETRY_AFTER_S`."""
    try:
        seconds = math.ceil(float(header or ""))
    except (ValueError, OverflowError):
        return None
    return seconds if 0 < seconds <= MAX_REPORTED_RETRY_AFTER_S else None
