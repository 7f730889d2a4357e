"""The input of an agent's run of one turn, and the events that the agent yields."""

from msgspec import Struct

from latchkey.domain.credentials import Scope, TokenSecret
from latchkey.domain.message import PastTurn
from latchkey.domain.tool_call import ToolRequest, ToolReturned
from latchkey.domain.turn import TurnId, Usage


class AgentRun(Struct, frozen=True, kw_only=True):
    """The input of one run. `secret` is the turn's context token, for the agent's MCP client; `scope` is its scope."""

    turn_id: TurnId
    instructions: str
    history: list[PastTurn]
    message: str
    secret: TokenSecret
    scope: Scope
    max_steps: int


class TextDelta(Struct, frozen=True):
    """A piece of the answer. All pieces joined are the answer. `is_last` is set if the model API marks the end."""

    text: str
    is_last: bool = False


class ModelCall(Struct, frozen=True):
    """One request to the model that was answered.

    - `model`: the name in the answer; None if the server names none.
    - `cached_tokens`: input tokens that the server read from its cache. They are among the input tokens of `usage`.
    - `duration_ms`: from the request to the end of the answer, retries included; None if the agent does not measure it.
    """

    usage: Usage
    model: str | None = None
    cached_tokens: int = 0
    duration_ms: float | None = None


AgentEvent = TextDelta | ModelCall | ToolRequest | ToolReturned
"""The turn's usage is the sum of the usages of its model calls."""
