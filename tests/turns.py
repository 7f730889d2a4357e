"""Starts a turn through the dispatcher, without running an agent."""

from collections.abc import AsyncGenerator
from typing import Any

from latchkey.application.dispatcher import Dispatcher
from latchkey.application.turns.start import AcceptanceLimits, StartedTurn, TurnProfile, TurnProfiles, start_turn
from latchkey.domain.agent import AgentEvent, AgentRun
from latchkey.domain.assistant import DEFAULT_ASSISTANT
from latchkey.domain.conversation import ConversationId
from latchkey.domain.credentials import Grant, Owner
from latchkey.domain.message import NewMessage
from latchkey.domain.ports import Agent
from tests.builders import LIMITS, TASK_GRANTS


class UnusedAgent:
    """Starting a turn runs no agent."""

    name = "rehearsal"
    model = None

    def run(self, agent_run: AgentRun) -> AsyncGenerator[AgentEvent, None]:
        raise AssertionError(agent_run)

    async def aclose(self) -> None:
        pass


def profiles_of(grants: list[Grant] = TASK_GRANTS, agent: Agent | None = None, **profile: Any) -> TurnProfiles:
    """Profiles with one assistant, `default`, which also creates files."""
    default = TurnProfile(agent or UnusedAgent(), "", grants, **profile)
    return TurnProfiles({DEFAULT_ASSISTANT: default}, default)


async def started_turn(
    dispatcher: Dispatcher,
    owner: Owner,
    text: str = "Hello",
    conversation_id: ConversationId | None = None,
    *,
    grants: list[Grant] = TASK_GRANTS,
    limits: AcceptanceLimits = LIMITS,
) -> StartedTurn:
    """Start a turn for that message. Raises what `start_turn` raises."""
    turn = await dispatcher.call(owner, start_turn, NewMessage(text, conversation_id), profiles_of(grants), limits)
    assert isinstance(turn, StartedTurn)
    return turn
