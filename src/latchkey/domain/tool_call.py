"""Tool calls of a turn, as recorded: arguments, result and duration."""

import json
from datetime import timedelta
from hashlib import sha256
from typing import Annotated, Any, Literal, NewType
from uuid import UUID

import msgspec
from msgspec import Meta, Raw, Struct

from latchkey.domain.credentials import Scope
from latchkey.domain.errors import Failure, IdempotencyMismatch
from latchkey.domain.values import PLAIN, Instant

ToolCallId = NewType("ToolCallId", UUID)
ExternalCallId = Annotated[str, Meta(min_length=1, max_length=255, pattern=PLAIN)]
"""The id that the caller gave to the call, such as the model's id of a tool call."""

OmittedField = Literal["arguments", "result"]

ANNOUNCE_AFTER_S = 0.1
"""A call of a turn's agent that takes longer is announced: recorded without a result while it runs."""

IDEMPOTENCY_PERIOD = timedelta(hours=24)
"""How long a call outside a turn is remembered by its id, and a request by its `Idempotency-Key`."""

HTTP_REQUEST = "request"
"""The `caller` of an `IdempotentCall` that is a request with an `Idempotency-Key`."""

APPROVAL_REQUEST = "approval"
"""The `caller` of an `IdempotentCall` that is a question to the user about a call outside a turn."""

NO_RESULT = Raw(b"null")
_NOTHING = {b"", b"null"}

_encode = msgspec.json.Encoder().encode
_encode_sorted = msgspec.json.Encoder(order="deterministic").encode


class ToolCall(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """`arguments` is what the model sent; `result` is the structured content, or `{code, detail}` of a tool error.

    A call that was interrupted before it had a result has the result null, and counts as an error. `omitted` names
    the fields that are too large for this response: in their place is an object with `omitted_bytes` and `detail`,
    which says where the whole is.
    """

    id: ToolCallId
    name: str
    arguments: Raw
    result: Raw
    is_error: bool
    started_at: Instant
    duration_ms: int
    omitted: list[OmittedField] = []

    @property
    def size(self) -> int:
        """The bytes of the arguments and the result."""
        return len(bytes(self.arguments)) + len(bytes(self.result))

    @property
    def has_arguments(self) -> bool:
        """False if the arguments were nested too deeply to be stored."""
        return bytes(self.arguments) not in _NOTHING

    @property
    def has_result(self) -> bool:
        """False for a call that is announced or was interrupted."""
        return bytes(self.result) not in _NOTHING


class StoredCall(Struct, frozen=True):
    """A call as stored.

    `is_started` says that it runs outside a transaction, or did, and has no result. `is_asked` says that it waits for
    the user.
    """

    call: ToolCall
    is_started: bool
    is_asked: bool = False


class StartedCall(Struct, frozen=True):
    """The id of a call that is recorded as started, and whether it had been announced before."""

    id: ToolCallId
    was_announced: bool


class IdempotentCall(Struct, frozen=True):
    """A call outside a turn that repeats return the outcome of, for `IDEMPOTENCY_PERIOD` after `created_at`.

    `caller` is the credential within which the key is unique, `HTTP_REQUEST` for the `Idempotency-Key` of a request, or
    `APPROVAL_REQUEST`. `digest` identifies the request, and `response` is the JSON of its result.
    """

    caller: str
    key: str
    digest: str
    response: str
    is_error: bool
    created_at: Instant

    def check_digest(self, digest: str) -> None:
        """Raises `IdempotencyMismatch` if the digest is that of another request."""
        if self.digest != digest:
            raise IdempotencyMismatch(
                "This Idempotency-Key was used with another request: use a new key for each new request."
            )


class ToolRequest(Struct, frozen=True):
    """A tool call requested by the model.

    The agent makes the call, with this id, after the consumer has processed this event.
    """

    call_id: str
    name: str
    arguments: Raw

    @classmethod
    def create(cls, call_id: str, name: str, arguments: dict[str, Any]) -> "ToolRequest | None":
        """Make a request; None for an id that cannot be stored, so that the tool call itself reports the failure."""
        if not is_usable_call_id(call_id):
            return None
        return cls(call_id, name, Raw(encode_arguments(arguments)))


def is_usable_call_id(call_id: str) -> bool:
    """Whether a call can be stored under this id."""
    try:
        msgspec.convert(call_id, ExternalCallId)
    except (msgspec.ValidationError, UnicodeEncodeError):
        return False
    return True


class ToolReturned(Struct, frozen=True):
    """The tool call with this id has returned."""

    call_id: str


def canonical_json(json: bytes | Raw) -> bytes:
    """Encode equal JSON values as equal bytes, whatever the order of members.

    The bytes are compared because Python objects for `1` and `true` are equal.
    """
    return _encode_sorted(msgspec.json.decode(json))


def encode_arguments(arguments: dict[str, Any]) -> bytes:
    """Encode arguments as JSON; a lone surrogate becomes U+FFFD, arguments that are nested too deeply become null."""
    try:
        return _encode(arguments)
    except UnicodeEncodeError:
        return _encode(_without_surrogates(arguments))
    except RecursionError:
        return b"null"


def _without_surrogates(arguments: dict[str, Any]) -> Any:
    text = json.dumps(arguments, ensure_ascii=False)
    return json.loads(text.encode("utf-16", "surrogatepass").decode("utf-16", "replace"))


class ToolOutcome(Struct, frozen=True):
    """The result of a tool call as a value and as JSON: structured content, or `{code, detail}` for an error.

    `is_waiting` says that the call is stored, and waits for the user.
    """

    content: Any
    json: bytes
    is_error: bool = False
    is_waiting: bool = False

    @property
    def code(self) -> str:
        """`ok`, or the code of the error."""
        return str(self.content["code"]) if self.is_error else "ok"


class ToolInvocation(Struct, frozen=True):
    """A tool call as received: the tool's name, the JSON of its arguments, and the caller's id of the call.

    A call that repeats a `call_id` of the same turn gets the outcome of the first one, and has no second effect. So
    does a call outside a turn, for 24 hours and for the same credential, if its use case changes anything.

    - `asks`: the tool declares that the user is asked before it runs with these arguments.
    - `is_approved`: the user has approved the call; for calls outside a turn.
    """

    name: str
    arguments: bytes
    call_id: str | None = None
    asks: bool = False
    is_approved: bool = False

    @property
    def digest(self) -> str:
        """A digest of the name and the arguments, which is the same whatever the order of members."""
        return sha256(self.name.encode() + b"\n" + canonical_json(self.arguments)).hexdigest()

    def must_wait(self, scope: Scope) -> bool:
        """Whether the user must approve the call first."""
        return (self.asks or self.name in scope.approve) and not self.is_approved


def failed_outcome(failure: Failure) -> ToolOutcome:
    """Return the outcome of a call that failed: a tool error."""
    content = {"code": failure.code, "detail": failure.detail}
    return ToolOutcome(content, _encode(content), is_error=True)
