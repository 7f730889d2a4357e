"""The assistants over HTTP."""

from litestar import get
from litestar.di import NamedDependency

from latchkey.application.turns.runner import TurnRunner
from latchkey.domain.assistant import AssistantList


@get("/assistants", tags=["chat"])
async def list_assistants(runner: NamedDependency[TurnRunner]) -> AssistantList:
    """List all assistants that a conversation can begin with, and the models that a message to each may choose."""
    return runner.profiles.summaries()
