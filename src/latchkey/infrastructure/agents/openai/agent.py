"""The agent that asks a model through the OpenAI Agents SDK, on any server that speaks one of OpenAI's APIs."""

from collections.abc import AsyncGenerator
from contextlib import aclosing
from copy import copy
from functools import partial
from typing import Literal

import httpx2
from agents import (
    ModelSettings,
    RunConfig,
    Runner,
    ToolExecutionConfig,
    set_trace_processors,
    set_tracing_disabled,
)
from agents.exceptions import ModelRefusalError
from agents.models import get_default_model

from latchkey.domain.agent import AgentEvent, AgentRun
from latchkey.domain.errors import ModelBadResponse
from latchkey.infrastructure.agents.history import input_items
from latchkey.infrastructure.agents.openai.chat_completions import ChatCompletionsApi
from latchkey.infrastructure.agents.openai.client import ModelClient
from latchkey.infrastructure.agents.openai.errors import told_as_failures
from latchkey.infrastructure.agents.openai.function_tools import TurnAgent, function_tools
from latchkey.infrastructure.agents.openai.model import StreamingModel, Tell
from latchkey.infrastructure.agents.openai.model_api import ModelApi
from latchkey.infrastructure.agents.openai.responses import ResponsesApi
from latchkey.infrastructure.agents.toolset import Connect, Toolset, open_toolset
from latchkey.infrastructure.agents.turn_tasks import AgentEventStream, TurnTasks

Api = Literal["responses", "chat_completions"]

_WIRES: dict[Api, type[ResponsesApi | ChatCompletionsApi]] = {
    "responses": ResponsesApi,
    "chat_completions": ChatCompletionsApi,
}


class OpenAIAgent:
    """Keeps one client for all turns. A turn runs in a task of its own, which ends with its iterator.

    Without a model it is the SDK's own default.
    """

    name = "openai"

    def __init__(
        self,
        connect: Connect,
        *,
        model: str | None,
        api_key: str,
        base_url: str | None = None,
        api: Api = "responses",
        transport: httpx2.AsyncBaseTransport | None = None,
    ) -> None:
        _switch_tracing_off()
        self._turns = TurnTasks()
        self._connect = connect
        self._wire: ModelApi = _WIRES[api](model or get_default_model())
        self._server = ModelClient(self._wire.path, api_key, base_url, transport)

    async def aclose(self) -> None:
        """End whatever runs, and close the connections to the model's server."""
        await self._turns.aclose()
        await self._server.aclose()

    async def run(self, agent_run: AgentRun) -> AsyncGenerator[AgentEvent, None]:
        """What the model says and costs, as it happens."""
        async with aclosing(self._turns.stream(partial(self._carry, agent_run))) as events:
            async for event in events:
                yield event

    async def _carry(self, agent_run: AgentRun, events: AgentEventStream) -> None:
        """The connection to the tools has to be opened and closed in one task, so the whole turn is one."""
        with events:
            async with open_toolset(self._connect, agent_run, events) as toolset:
                with told_as_failures():
                    await self._ask(agent_run, toolset, events.send)

    async def _ask(self, agent_run: AgentRun, toolset: Toolset, tell: Tell) -> None:
        # A copy: to make one anew, with all that is looked at then, takes 0.1 ms.
        agent = copy(_AGENT)
        agent.instructions = agent_run.instructions
        agent.model = StreamingModel(self._wire, self._server, input_items(agent_run.history), tell)
        agent.offered = function_tools(toolset.tools)
        try:
            await Runner.run(agent, agent_run.message, context=toolset, max_turns=agent_run.max_steps, run_config=_RUN)
        except ModelRefusalError:
            return  # What it said instead has been told: it is the answer.
        except (UnicodeEncodeError, RecursionError) as error:
            # The SDK stumbles over arguments before it calls any tool of the answer.
            raise ModelBadResponse(
                "The model's tool call has half a character in it, or is nested too deeply."
            ) from error


_AGENT = TurnAgent(name="latchkey", model_settings=ModelSettings())
_RUN = RunConfig(
    tracing_disabled=True,
    trace_include_sensitive_data=False,
    tool_not_found_behavior="return_error_to_model",
    tool_execution=ToolExecutionConfig(max_function_tool_concurrency=1),
)


def _switch_tracing_off() -> None:
    """The SDK would send prompts to an endpoint of its own; without processors it has nowhere to send them."""
    set_tracing_disabled(True)
    set_trace_processors([])
