"""What an agent is given for one turn, and what it tells while it works."""

from typing import Any

import msgspec
from msgspec import Raw, Struct

from latchkey.domain.credentials import Scope, TokenSecret
from latchkey.domain.message import PastTurn
from latchkey.domain.tool_call import ExternalCallId, encode_arguments
from latchkey.domain.turn import TurnId, Usage


class AgentRun(Struct, frozen=True, kw_only=True):
    """One turn's work. The agent reaches its tools over MCP with `secret`, which opens `scope` as long as it lives."""

    turn_id: TurnId
    instructions: str
    history: list[PastTurn]
    message: str
    secret: TokenSecret
    scope: Scope
    max_steps: int


class TextDelta(Struct, frozen=True):
    """A piece of the answer, as the model says it. The pieces joined are the answer; the last may say that it is."""

    text: str
    is_last: bool = False


class ToolRequest(Struct, frozen=True):
    """The model asks for a tool, which is called under this id once whoever listens has taken note."""

    call_id: str
    name: str
    arguments: Raw

    @classmethod
    def create(cls, call_id: str, name: str, arguments: dict[str, Any]) -> "ToolRequest | None":
        """None for an id that no call can be kept under, which the tool will say."""
        try:
            msgspec.convert(call_id, ExternalCallId)
        except (msgspec.ValidationError, UnicodeEncodeError):
            return None
        return cls(call_id, name, Raw(encode_arguments(arguments)))


class ToolReturned(Struct, frozen=True):
    """The tool that was asked for under this id has answered."""

    call_id: str


AgentEvent = TextDelta | Usage | ToolRequest | ToolReturned
"""`Usage` is what one more request to the model has cost; the sum is the turn's."""
