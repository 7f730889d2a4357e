"""What can go wrong when the Claude CLI asks its model, and how the turn says it."""

import math

from latchkey.domain.errors import MaxSteps, ModelBadResponse, ModelUnavailable, RateLimited, TurnFailed
from latchkey.infrastructure.agents.claude.output import ResultLine
from latchkey.infrastructure.agents.openai.errors import LONGEST_RETRY_AFTER_S
from latchkey.infrastructure.agents.openai.retries import LONGEST_RETRY_AFTER_S as LONGEST_PATIENCE_S

TOO_MANY_REQUESTS = 429
_PASSING = {408, 409, TOO_MANY_REQUESTS}
_SERVER_ERROR = 500

_LOOK_AT = {
    400: "check that LATCHKEY_CLAUDE_MODEL and the server at ANTHROPIC_BASE_URL fit the Claude CLI",
    401: "check ANTHROPIC_API_KEY",
    403: "check what ANTHROPIC_API_KEY may use",
    404: "check LATCHKEY_CLAUDE_MODEL and ANTHROPIC_BASE_URL",
}


def failure_of(result: ResultLine, error: str | None) -> TurnFailed:
    """What a failed turn says. `error` is the CLI's own word for it, where it had one."""
    if result.terminal_reason == "max_turns" or result.subtype == "error_max_turns":
        return MaxSteps("The agent needed more steps than a turn may have: ask for less at once.")
    if result.api_error_status is not None:
        return refusal(result.api_error_status)
    if error == "rate_limit":
        return refusal(TOO_MANY_REQUESTS)
    if error == "server_error":
        return ModelUnavailable(
            "The model's server cannot be reached, or broke off with an error: check ANTHROPIC_BASE_URL."
        )
    return ModelBadResponse("The model's answer is incomplete or malformed.")


def refusal(status: int) -> TurnFailed:
    if status == TOO_MANY_REQUESTS:
        return RateLimited("The model's provider asks to slow down: try again later.")
    advice = _LOOK_AT.get(status, "see the provider's status page")
    return ModelUnavailable(f"The model's server answered with status {status}: {advice}.")


def check_retry(status: int | None, delay_ms: float) -> None:
    """Raises what the CLI is about to try again for, unless it may pass and the wait is short.

    It would sleep through a turn; whoever waits for the turn can decide better.
    """
    may_pass = status is None or status in _PASSING or status >= _SERVER_ERROR
    if may_pass and delay_ms <= LONGEST_PATIENCE_S * 1000:
        return
    if status == TOO_MANY_REQUESTS:
        seconds = min(math.ceil(delay_ms / 1000), LONGEST_RETRY_AFTER_S)
        raise RateLimited("The model's provider asks to slow down: try again later.", retry_after=seconds)
    raise refusal(status or _SERVER_ERROR)
