"""The failures that are reported to clients, as a class hierarchy.

Every failure has a published `code`. The interfaces map the general classes, so a new subclass needs no change there.
"""

from collections.abc import Iterator
from itertools import islice
from typing import ClassVar
from uuid import UUID

_MAX_CAUSES = 4
_MAX_CAUSE_CHARS = 200


class Failure(Exception):
    """A failure that the client may see. `detail` says what is wrong and what would be right.

    `members` are published beside `code` and `detail` (extension members of RFC 9457). `retry_after` is in seconds;
    None means that a retry is of no use.
    """

    code: ClassVar[str] = "internal"
    retry_after: int | None = None

    def __init__(self, detail: str, **members: object) -> None:
        super().__init__(detail)
        self.detail = detail
        self.members = members


class Unauthenticated(Failure):
    """The credential is missing, malformed, expired or revoked."""

    code = "unauthenticated"


class Forbidden(Failure):
    """The credential is valid and does not give access to this."""

    code = "forbidden"


class WrongUser(Forbidden):
    """The path names another user, whether or not that user exists."""

    code = "wrong-user"


class NotFound(Failure):
    """Absent, or outside the scope: the caller cannot tell which."""

    code = "not-found"

    @classmethod
    def of(cls, noun: str) -> "NotFound":
        """Make the failure, with the same text for what does not exist and what is outside the scope."""
        return cls(f"There is no such {noun}.")


class Invalid(Failure):
    """The input breaks a rule. `errors` lists `{path, message}`."""

    code = "invalid"

    @classmethod
    def at(cls, path: str, message: str) -> "Invalid":
        """Make the failure of the input at this path, such as `$.title`."""
        return cls(f"{path}: {message}", errors=[{"path": path, "message": message}])


class Malformed(Invalid):
    """The input cannot be parsed."""


class TooLarge(Invalid):
    """The input is larger than the limit that the detail names."""

    code = "too-large"


class UnsupportedMediaType(Invalid):
    """The operation does not accept this content type."""

    code = "unsupported-media-type"


class StreamBroken(Failure):
    """The stream of a turn's events ends before the last one. Its response must break, or it would look complete."""

    code = "unavailable"


class Conflict(Failure):
    """The current state does not allow the operation."""

    code = "conflict"


class StaleVersion(Conflict):
    """The expected version is not the current one; nothing was changed."""

    code = "stale-version"


class TurnInProgress(Conflict):
    """The turn of this conversation or of this idempotency key is still running."""

    code = "turn-in-progress"


class IdempotencyMismatch(Invalid):
    """The `Idempotency-Key` was used before with another body or for another operation."""

    code = "idempotency-mismatch"


class TurnLost(Conflict):
    """The turn's lease has expired, and the turn is to be continued. `id` is the id of the turn."""

    def __init__(self, id: UUID) -> None:
        super().__init__("The turn's lease has expired, and no process has continued it yet.", turn_id=id)
        self.id = id


class OffsetConflict(Conflict):
    """The event log does not end at the expected offset: it has `answer_length` characters of the answer."""

    def __init__(self, answer_length: int) -> None:
        super().__init__(f"The recorded answer has {answer_length} characters: continue from there.")
        self.answer_length = answer_length


class DuplicateToolCall(Conflict):
    """The turn, or outside a turn the credential, already has a tool call with this id."""


class ApprovalRequired(Conflict):
    """The user must approve the tool call before it is made. It has had no effect."""

    code = "approval-required"


class Declined(Conflict):
    """The user declined the tool call, or did not approve it in time. It has had no effect."""

    code = "declined"


class NoResult(Conflict):
    """The service was interrupted during the tool call. It may have had its effect, and is not made again."""

    code = "no-result"


class TurnCancelled(Conflict):
    """The turn was cancelled before it was answered."""

    code = "turn-cancelled"


class Exhausted(Failure):
    """A limit of the user is reached."""

    code = "exhausted"
    retry_after = 5

    def __init__(self, detail: str, *, retry_after: int = retry_after, **members: object) -> None:
        super().__init__(detail, **members)
        self.retry_after = retry_after


class TooManyTurns(Exhausted):
    """The limit of the user's running turns is reached."""

    code = "too-many-turns"


class TooManyCalls(Exhausted):
    """The limit of the turn's tool calls is reached. The call had no effect and is not recorded."""


class Unavailable(Failure):
    """A service that Latchkey depends on is down or slow."""

    code = "unavailable"
    retry_after = 5


class ConcurrentWrite(Unavailable):
    """A concurrent write to the same turn won. This unit of work had no effect and can be retried at once."""


class AgentNotConfigured(Unavailable):
    """No agent is configured for this kind of turn; nothing was stored."""

    code = "agent-not-configured"


class Draining(Unavailable):
    """This process is stopping: it starts no turns, and hands over those that run."""

    code = "draining"
    retry_after = 1


class TurnInterrupted(Unavailable):
    """The process that ran the turn stopped. The turn does not continue."""

    code = "turn-interrupted"


class TurnFailed(Failure):
    """A turn ended without an answer. The user's message and the effects of its tool calls stay."""


class ToolsUnavailable(TurnFailed):
    """The agent could not reach its tools, or the tools offered differ from those that its token grants."""

    code = "tools-unavailable"
    retry_after = 5


class RateLimited(TurnFailed):
    """The model's provider reported a rate limit."""

    code = "rate-limited"
    retry_after = 10

    def __init__(self, detail: str, *, retry_after: int = retry_after) -> None:
        super().__init__(detail)
        self.retry_after = retry_after


class ModelUnavailable(TurnFailed):
    """The model could not be reached, timed out, or returned an error."""

    code = "model-unavailable"


class ModelBadResponse(TurnFailed):
    """The model's response is not an answer: broken stream, empty text, or unknown format."""

    code = "model-bad-response"


class ContextTooLong(TurnFailed):
    """The conversation is longer than the model's context window."""

    code = "context-too-long"


class ToolTimeout(Failure):
    """A tool outside a transaction exceeded its time limit. It may have had its effect."""

    code = "deadline"


class MaxSteps(TurnFailed):
    """The agent reached the limit of steps, which are requests to the model."""

    code = "max-steps"

    @classmethod
    def of_turn(cls) -> "MaxSteps":
        """Make the failure of a turn that has used all of its steps."""
        return cls("The turn needed more steps than allowed: ask for less in one message.")


class DeadlinePassed(TurnFailed):
    """The turn exceeded its deadline."""

    code = "deadline"


def cause_of(failure: BaseException) -> str | None:
    """Return the exceptions that caused a failure, in one short line for the log; None for a failure without a cause.

    Clients never see this text: it can name hosts, files and the words of other servers.
    """
    return " <- ".join(map(_in_short, islice(_causes(failure), _MAX_CAUSES))) or None


def _causes(failure: BaseException) -> Iterator[BaseException]:
    while cause := failure.__cause__ or (None if failure.__suppress_context__ else failure.__context__):
        yield cause
        failure = cause


def _in_short(error: BaseException) -> str:
    text = " ".join(str(error).split())
    return f"{type(error).__name__}: {text}"[:_MAX_CAUSE_CHARS] if text else type(error).__name__
