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


AgentEvent = TextDelta | Usage | ToolRequest | ToolReturned
"""Each `Usage` is that of one more request to the model; the turn's usage is their sum."""
