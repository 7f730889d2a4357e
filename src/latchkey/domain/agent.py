"""The input of an agent's run of one turn, and the events that the agent yields."""

from contextvars import ContextVar

from msgspec import Struct

from latchkey.domain.assistant import NO_OPTIONS, ModelOptions
from latchkey.domain.credentials import Scope, TokenSecret
from latchkey.domain.message import PastTurn
from latchkey.domain.tool_call import ToolCall, ToolRequest, ToolReturned
from latchkey.domain.turn import TurnId, Usage


class PastStep(Struct, frozen=True):
    """A step of the turn that an earlier attempt has finished: the text of the model, then its tool calls."""

    text: str
    tool_calls: list[ToolCall]


class AgentRun(Struct, frozen=True, kw_only=True):
    """The input of one run. `secret` is the turn's context token, for the agent's MCP client; `scope` is its scope.

    `options` are for the requests to the model. An agent ignores an option that its model API does not have.
    `steps` and `usage` are those of earlier attempts: the agent goes on after the last step.
    """

    turn_id: TurnId
    instructions: str
    history: list[PastTurn]
    message: str
    secret: TokenSecret
    scope: Scope
    max_steps: int
    options: ModelOptions = NO_OPTIONS
    steps: list[PastStep] = []
    usage: Usage = Usage()
    attempt: int = 1


class TurnWaiting(Exception):
    """An agent raises it in place of its next request to the model: calls of the last step wait for the user."""


class TextDelta(Struct, frozen=True):
    """A piece of the answer. All pieces joined are the answer. `is_last` is set if the model API marks the end."""

    text: str
    is_last: bool = False


class ModelCall(Struct, frozen=True):
    """One request to the model that was answered.

    - `model`: the name in the answer; None if the server names none.
    - `cached_tokens`: input tokens that the server read from its cache. They are among the input tokens of `usage`.
    """

    usage: Usage
    model: str | None = None
    cached_tokens: int = 0


AgentEvent = TextDelta | ModelCall | ToolRequest | ToolReturned
"""The turn's usage is the sum of the usages of its model calls."""


class RunMetrics(Struct):
    """What a run measures for the log line of its turn. Each part of the run adds to the same object.

    - `waited_ms`: until a slot for the agent was free. `loaded_ms`: until the agent's libraries were imported.
    - `model_ms`: the duration of each request to the model, its retries included, if the agent measures it.
    - `retries`: how many requests the model's client has repeated, in all.
    - `upstream_status`: the HTTP status of the last response of the model's server; None if there was none.
    - `db_ms`: the time in units of work, from the wait for a connection to the commit.
    """

    waited_ms: float = 0
    loaded_ms: float = 0
    model_ms: list[float] = []
    retries: int = 0
    upstream_status: int | None = None
    db_ms: float = 0


RUN_METRICS: ContextVar[RunMetrics | None] = ContextVar("RUN_METRICS", default=None)
"""The metrics of the run to which the current task belongs; None outside a run."""
