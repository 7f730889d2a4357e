"""What an agent is given for one turn, and what it tells while it works."""

from msgspec import Struct

from latchkey.domain.message import PastTurn
from latchkey.domain.scope import TokenSecret
from latchkey.domain.turn import TurnId, Usage


class Assignment(Struct, frozen=True, kw_only=True):
    """One turn's work. The agent reaches its tools over MCP with `secret`, and is offered what that grants."""

    turn_id: TurnId
    instructions: str
    history: list[PastTurn]
    message: str
    secret: TokenSecret
    max_steps: int


class TextDelta(Struct, frozen=True):
    """A piece of the answer, as the model says it. The pieces joined are the answer."""

    text: str


AgentEvent = TextDelta | Usage
"""`Usage` is what one more request to the model has cost; the sum is the turn's."""
