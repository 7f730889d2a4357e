"""The agent that runs a turn with the OpenAI Agents SDK, on any server with one of OpenAI's APIs."""

from collections.abc import AsyncGenerator
from contextlib import aclosing
from copy import copy
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Literal

import httpx2
from agents import (
    Agent,
    FunctionTool,
    ModelSettings,
    RunConfig,
    RunContextWrapper,
    Runner,
    ToolExecutionConfig,
    set_trace_processors,
    set_tracing_disabled,
)
from agents import Tool as AgentTool
from agents.exceptions import MaxTurnsExceeded, ModelRefusalError
from mcp.types import Tool

from latchkey.domain.agent import AgentEvent, AgentRun
from latchkey.infrastructure.agents.model_failures import unencodable_arguments
from latchkey.infrastructure.agents.openai.agents_sdk import ToolContext, get_default_model
from latchkey.infrastructure.agents.openai.chat_completions import ChatCompletionsApi
from latchkey.infrastructure.agents.openai.model import ModelApi, Publish, StreamingModel
from latchkey.infrastructure.agents.openai.model_client import ModelClient, sdk_errors_as_failures
from latchkey.infrastructure.agents.openai.responses import ResponsesApi
from latchkey.infrastructure.agents.toolset import Connect, Toolset, open_toolset
from latchkey.infrastructure.agents.turn_tasks import AgentEventStream, TurnTasks

Api = Literal["responses", "chat_completions"]

_APIS: dict[Api, type[ResponsesApi | ChatCompletionsApi]] = {
    "responses": ResponsesApi,
    "chat_completions": ChatCompletionsApi,
}


@dataclass(frozen=True)
class TurnTools:
    """The run context of a turn: its tools, and by call id the arguments of the model that are no JSON object."""

    toolset: Toolset
    unreadable_arguments: dict[str, str]


@dataclass
class TurnAgent(Agent[TurnTools]):
    """An agent whose tools are in `turn_tools` instead of `tools`.

    The SDK computes a key from everything in `tools`, twice in a turn, to compare agents. A turn has only one agent.
    """

    turn_tools: list[FunctionTool] = field(default_factory=list)

    async def get_all_tools(self, _: RunContextWrapper[TurnTools]) -> list[AgentTool]:
        return [*self.turn_tools]


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
        self._client = ModelClient(_APIS[api].path, api_key, base_url, transport)
        self.model = model or get_default_model()
        self._api = api

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
                    await self.run_loop(agent_run, toolset, events.send)

    def create_model(self, agent_run: AgentRun, toolset: Toolset, publish: Publish) -> StreamingModel:
        """Return the model of one turn, which publishes its text and its usage.

        It is not asked again once a call waits for the user.
        """
        options = agent_run.options
        api: ModelApi = _APIS[self._api](options.model or self.model, options, is_openai=self._client.is_openai)
        return StreamingModel(api, self._client, agent_run, toolset.check_not_waiting, publish)

    async def run_loop(self, agent_run: AgentRun, toolset: Toolset, publish: Publish) -> None:
        """Ask the model and call tools, in turn, until the model answers."""
        agent = copy(_AGENT)  # cheaper than a new one, which the SDK would validate
        agent.instructions = agent_run.instructions
        agent.model = model = self.create_model(agent_run, toolset, publish)
        context = TurnTools(toolset, model.unreadable_arguments)
        agent.turn_tools = function_tools(toolset.tools)
        try:
            await Runner.run(agent, agent_run.message, context=context, max_turns=agent_run.max_steps, run_config=_RUN)
        except MaxTurnsExceeded:
            toolset.check_not_waiting()
            raise
        except ModelRefusalError:
            return  # The text of the refusal has been published: it is the answer.
        except (UnicodeEncodeError, RecursionError) as error:
            # The SDK fails on such arguments before it calls any tool of the answer.
            raise unencodable_arguments() from error


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


def function_tools(tools: list[Tool]) -> list[FunctionTool]:
    return [_function_tool(tool) for tool in tools]


def _function_tool(tool: Tool) -> FunctionTool:
    return FunctionTool(
        name=tool.name,
        description=tool.description or "",
        params_json_schema={"properties": {}, **tool.input_schema},
        on_invoke_tool=_call_tool,
        strict_json_schema=False,
    )


async def _call_tool(context: ToolContext[TurnTools], arguments: str) -> Any:
    turn, call_id = context.context, context.tool_call_id
    return await turn.toolset.call(call_id, context.tool_name, turn.unreadable_arguments.get(call_id, arguments))
