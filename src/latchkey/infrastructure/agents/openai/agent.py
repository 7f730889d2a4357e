"""The agent that runs a turn with the OpenAI Agents SDK, on any server with one of OpenAI's APIs."""

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
from latchkey.infrastructure.agents.openai.agents_sdk import TurnAgent, function_tools
from latchkey.infrastructure.agents.openai.chat_completions import ChatCompletionsApi
from latchkey.infrastructure.agents.openai.errors import sdk_errors_as_failures
from latchkey.infrastructure.agents.openai.input_items import input_items
from latchkey.infrastructure.agents.openai.model_api import ModelApi
from latchkey.infrastructure.agents.openai.model_client import ModelClient
from latchkey.infrastructure.agents.openai.responses import ResponsesApi
from latchkey.infrastructure.agents.openai.streaming_model import Publish, StreamingModel
from latchkey.infrastructure.agents.toolset import Connect, Toolset, open_toolset
from latchkey.infrastructure.agents.turn_tasks import AgentEventStream, TurnTasks

Api = Literal["responses", "chat_completions"]

_APIS: dict[Api, type[ResponsesApi | ChatCompletionsApi]] = {
    "responses": ResponsesApi,
    "chat_completions": ChatCompletionsApi,
}


class OpenAIAgent:
    """Shares one HTTP client between all turns. Without `model`, it uses the default model of the SDK."""

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
        _disable_tracing()
        self._turns = TurnTasks()
        self._connect = connect
        self._api: ModelApi = _APIS[api](model or get_default_model())
        self._client = ModelClient(self._api.path, api_key, base_url, transport)

    async def aclose(self) -> None:
        """Cancel all running turns, and close the connections to the model's server."""
        await self._turns.aclose()
        await self._client.aclose()

    async def run(self, agent_run: AgentRun) -> AsyncGenerator[AgentEvent, None]:
        """The events of the turn while it runs. Closing the iterator ends the turn."""
        async with aclosing(self._turns.stream(partial(self._run_turn, agent_run))) as events:
            async for event in events:
                yield event

    async def _run_turn(self, agent_run: AgentRun, events: AgentEventStream) -> None:
        """Runs in one task, because one task must open and close the connection to the tools."""
        with events:
            async with open_toolset(self._connect, agent_run, events) as toolset:
                with sdk_errors_as_failures():
                    await self._run_sdk(agent_run, toolset, events.send)

    async def _run_sdk(self, agent_run: AgentRun, toolset: Toolset, publish: Publish) -> None:
        agent = copy(_AGENT)  # cheaper than a new one, which the SDK would validate
        agent.instructions = agent_run.instructions
        agent.model = StreamingModel(self._api, self._client, input_items(agent_run.history), publish)
        agent.turn_tools = function_tools(toolset.tools)
        try:
            await Runner.run(agent, agent_run.message, context=toolset, max_turns=agent_run.max_steps, run_config=_RUN)
        except ModelRefusalError:
            return  # The text of the refusal has been published: it is the answer.
        except (UnicodeEncodeError, RecursionError) as error:
            # The SDK fails on such arguments before it calls any tool of the answer.
            raise ModelBadResponse(
                "The model's tool call contains a lone surrogate, or is nested too deeply."
            ) from error


_AGENT = TurnAgent(name="latchkey", model_settings=ModelSettings())
_RUN = RunConfig(
    tracing_disabled=True,
    trace_include_sensitive_data=False,
    tool_not_found_behavior="return_error_to_model",
    tool_execution=ToolExecutionConfig(max_function_tool_concurrency=1),
)


def _disable_tracing() -> None:
    """Prevent the SDK from sending prompts to OpenAI's tracing endpoint: it is switched off and has no processors."""
    set_tracing_disabled(True)
    set_trace_processors([])
