"""The input of an agent's run of one turn, and the events that the agent yields."""

from typing import Any

import msgspec
from msgspec import Raw, Struct

from latchkey.domain.credentials import Scope, TokenSecret
from latchkey.domain.message import PastTurn
from latchkey.domain.tool_call import ExternalCallId, encode_arguments
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
    """A piece of the answer. All pieces joined are the answer. `is_last` marks the end if the model API tells it."""

    text: str
    is_last: bool = False


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
        try:
            msgspec.convert(call_id, ExternalCallId)
        except (msgspec.ValidationError, UnicodeEncodeError):
            return None
        return cls(call_id, name, Raw(encode_arguments(arguments)))


class ToolReturned(Struct, frozen=True):
    """The tool call with this id has returned."""

    call_id: str


AgentEvent = TextDelta | Usage | ToolRequest | ToolReturned
"""Each `Usage` is that of one more request to the model; the turn's usage is their sum."""
