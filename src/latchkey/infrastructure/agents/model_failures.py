"""The failures of a turn that a model or its server causes, in the same words for every agent."""

from latchkey.domain.errors import (
    ContextTooLong,
    ModelBadResponse,
    ModelUnavailable,
    RateLimited,
    ToolsUnavailable,
)

MAX_RETRY_WAIT_S = 5.0
"""If the model's server asks for a longer wait, the turn fails at once: its client can decide better what to do."""

MAX_REPORTED_RETRY_AFTER_S = 3600

TOO_MANY_REQUESTS = 429
INTERNAL_SERVER_ERROR = 500


def rate_limited(retry_after_s: int | None = None) -> RateLimited:
    """Without `retry_after_s`, clients are told to wait for the default time of `RateLimited`."""
    detail = "The model's provider limits the rate of requests: try again later."
    return RateLimited(detail) if retry_after_s is None else RateLimited(detail, retry_after=retry_after_s)


def error_status(status: int, advice: str | None) -> ModelUnavailable:
    """The model's server answered with an error. `advice` says what the operator should check."""
    advice = advice or "see the provider's status page"
    return ModelUnavailable(f"The model's server answered with status {status}: {advice}.")


def truncated_answer() -> ModelBadResponse:
    return ModelBadResponse("The model's answer was truncated: the answer or the conversation is too long.")


def incomplete_answer() -> ModelBadResponse:
    return ModelBadResponse("The model's answer stopped before its end.")


def context_too_long() -> ContextTooLong:
    return ContextTooLong("The conversation is longer than the model's context window: start a new conversation.")


def aborted_answer() -> ModelUnavailable:
    return ModelUnavailable("The model's server broke the answer off.")


def withheld_answer() -> ModelBadResponse:
    return ModelBadResponse(
        "The model's provider withheld the answer or the rest of it: its content filter decided so."
    )


def empty_answer() -> ModelBadResponse:
    return ModelBadResponse("The model's answer is empty: it has no text and no tool call.")


def malformed_answer() -> ModelBadResponse:
    return ModelBadResponse("The model's answer is incomplete or malformed.")


def unencodable_arguments() -> ModelBadResponse:
    return ModelBadResponse("The model's tool call contains a lone surrogate, or is nested too deeply.")


def tools_lost() -> ToolsUnavailable:
    return ToolsUnavailable("The agent lost the connection to its tools during the turn.")
