"""The kinds of failure a caller may be told about, drawn as a tree.

Every kind has a published `code`; a leaf subclasses a kind, and the wires (which map kinds) need no change.
"""

from typing import ClassVar


class Failure(Exception):
    """Something the caller may be told: what was wrong and what would be right, in `detail`.

    `members` are published beside `code` and `detail` (RFC 9457 calls them extension members). `retry_after` is
    in seconds, and None where waiting is of no use.
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
    """The credential is valid and does not open this."""

    code = "forbidden"


class WrongUser(Forbidden):
    """The path names another user, who may or may not exist."""

    code = "wrong-user"


class NotFound(Failure):
    """Absent, or outside the scope: the caller cannot tell which."""

    code = "not-found"

    @classmethod
    def of(cls, noun: str) -> "NotFound":
        """The one text for everything that is not there, so that it says nothing about anybody."""
        return cls(f"There is no such {noun}.")


class Invalid(Failure):
    """The input breaks a rule. `errors` lists `{path, message}`."""

    code = "invalid"

    @classmethod
    def at(cls, path: str, message: str) -> "Invalid":
        return cls(f"{path}: {message}", errors=[{"path": path, "message": message}])


class Malformed(Invalid):
    """The input cannot be read at all."""


class TooLarge(Invalid):
    """The input is larger than the limit that the detail names."""

    code = "too-large"


class UnsupportedMediaType(Invalid):
    """The body is of a type that this operation does not take."""

    code = "unsupported-media-type"


class Conflict(Failure):
    """The state does not allow it."""

    code = "conflict"


class StaleVersion(Conflict):
    """The version the caller named is not the current one; nothing was changed."""

    code = "stale-version"


class TurnInProgress(Conflict):
    """A turn is running that must end first: that of the conversation, or of the idempotency key."""

    code = "turn-in-progress"


class IdempotencyMismatch(Invalid):
    """The `Idempotency-Key` was used before, with another body."""

    code = "idempotency-mismatch"


class TurnLost(Conflict):
    """The turn's lease has passed, and it is not stored as interrupted yet."""


class OffsetConflict(Conflict):
    """The turn's events have other text than expected: `answer_length` characters."""

    def __init__(self, answer_length: int) -> None:
        super().__init__(f"The recorded answer has {answer_length} characters: continue from there.")
        self.answer_length = answer_length


class DuplicateToolCall(Conflict):
    """The turn has a tool call under this id already."""


class TurnCancelled(Conflict):
    """The turn was cancelled while somebody waited for its answer."""

    code = "turn-cancelled"


class Exhausted(Failure):
    """A limit of this user is reached."""

    code = "exhausted"
    retry_after = 5

    def __init__(self, detail: str, *, retry_after: int = retry_after, **members: object) -> None:
        super().__init__(detail, **members)
        self.retry_after = retry_after


class TooManyTurns(Exhausted):
    """As many turns of this user are running as may."""

    code = "too-many-turns"


class TooManyCalls(Exhausted):
    """The turn has called as many tools as it may. The call did not happen, and is not recorded."""


class Unavailable(Failure):
    """A collaborator is down or slow."""

    code = "unavailable"
    retry_after = 5


class ConcurrentWrite(Unavailable):
    """Somebody else wrote to the turn at the same time, and nothing has happened: it can be done anew at once."""


class AgentNotConfigured(Unavailable):
    """No agent is set up for this kind of turn; nothing was stored."""

    code = "agent-not-configured"


class Draining(Unavailable):
    """This process is about to end and takes no new turns; another one does."""

    code = "draining"
    retry_after = 1


class TurnInterrupted(Unavailable):
    """Whoever ran the turn stopped running it. Nothing of it happens any more."""

    code = "turn-interrupted"


class TurnFailed(Failure):
    """A turn ended without an answer. The user's message and the effects of its tool calls stay."""


class ToolsUnavailable(TurnFailed):
    """The agent could not reach its tools, or was offered others than its token grants."""

    code = "tools-unavailable"
    retry_after = 5


class RateLimited(TurnFailed):
    """The model's provider asked to slow down."""

    code = "rate-limited"
    retry_after = 10

    def __init__(self, detail: str, *, retry_after: int = retry_after) -> None:
        super().__init__(detail)
        self.retry_after = retry_after


class ModelUnavailable(TurnFailed):
    """The model could not be reached, timed out, or answered with an error of its own."""

    code = "model-unavailable"


class ModelBadResponse(TurnFailed):
    """The model answered something that is not an answer: broken stream, empty text, wrong shape."""

    code = "model-bad-response"


class MaxSteps(TurnFailed):
    """The agent asked the model more often than the limit of steps allows."""

    code = "max-steps"


class DeadlinePassed(TurnFailed):
    """The turn took longer than its deadline."""

    code = "deadline"
