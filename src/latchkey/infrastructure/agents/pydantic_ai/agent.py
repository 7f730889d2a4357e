"""The agent that runs a turn with Pydantic AI, on any server with one of OpenAI's APIs."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pydantic_ai
from agents import FunctionTool
from agents.items import TResponseOutputItem
from mcp.types import Tool
from pydantic_ai import (
    AbstractToolset,
    ModelMessage,
    ModelResponse,
    RunContext,
    TextPart,
    ToolCallPart,
    ToolDefinition,
    ToolReturnPart,
    UsageLimits,
    UserPromptPart,
)
from pydantic_ai.exceptions import AgentRunError, UsageLimitExceeded
from pydantic_ai.models import Model, ModelRequestParameters
from pydantic_ai.toolsets import ToolsetTool
from pydantic_core import PydanticSerializationError, to_json

from latchkey.domain.agent import AgentRun
from latchkey.domain.errors import Failure, MaxSteps
from latchkey.infrastructure.agents.model_failures import (
    malformed_answer,
    tools_lost,
    unencodable_arguments,
)
from latchkey.infrastructure.agents.openai.agent import OpenAIAgent, function_tools
from latchkey.infrastructure.agents.openai.model import Publish, StreamingModel, text_of
from latchkey.infrastructure.agents.toolset import Toolset, parse_object

_OUTPUT = "output"
_ARGUMENTS = "arguments"


class PydanticAIAgent(OpenAIAgent):
    """Pydantic AI decides what comes next; the requests to the model and the tool calls are those of Latchkey.

    Pydantic AI's own models would read the answers of many servers differently from the agent `openai`, and would
    retry, log and follow redirects by rules of their own.
    """

    name = "pydantic_ai"

    async def run_loop(self, agent_run: AgentRun, toolset: Toolset, publish: Publish) -> None:
        model = self.create_model(agent_run, toolset, publish)
        with _errors_as_failures(toolset):
            await _AGENT.run(
                agent_run.message,
                model=TurnModel(model, agent_run.instructions, function_tools(toolset.tools)),
                toolsets=[TurnToolset(toolset, model.unreadable_arguments, agent_run.max_steps)],
                usage_limits=UsageLimits(request_limit=agent_run.max_steps),
                retries=agent_run.max_steps,  # calls of unknown tools in a row
                infer_name=False,
            )


pydantic_ai.BANNER_ENABLED = False  # it would be printed into the log
_AGENT = pydantic_ai.Agent(name="latchkey")
_AGENT.instrument = False  # traces would have the texts of conversations


@contextmanager
def _errors_as_failures(toolset: Toolset) -> Iterator[None]:
    try:
        yield
    except UsageLimitExceeded as error:
        toolset.check_not_waiting()
        raise MaxSteps.of_turn() from error
    except AgentRunError as error:
        raise malformed_answer() from error


class TurnModel(Model[Any]):
    """The model of one turn, as Pydantic AI calls it.

    The output of each answer is kept in its message as it came: servers expect more of it than Pydantic AI has fields.
    """

    def __init__(self, model: StreamingModel, instructions: str, tools: list[FunctionTool]) -> None:
        super().__init__()
        self._model = model
        self._instructions = instructions
        self._tools = tools

    @property
    def model_name(self) -> str:
        return "latchkey"

    @property
    def system(self) -> str:
        return "latchkey"

    async def request(
        self, messages: list[ModelMessage], model_settings: Any, model_request_parameters: ModelRequestParameters
    ) -> ModelResponse:
        """Raises the `TurnFailed` that says what is wrong with the model or its answer."""
        conversation = [item for message in messages for item in _input_items(message)]
        try:
            response = await self._model.get_response(
                system_instructions=self._instructions, input=conversation, tools=self._tools
            )
            parts = [part for item in response.output for part in _parts(item)]
        except (UnicodeEncodeError, PydanticSerializationError, RecursionError) as error:
            raise unencodable_arguments() from error
        return ModelResponse(parts, provider_details={_OUTPUT: response.output})

    def prepare_messages(self, messages: list[ModelMessage], *_: Any, **__: Any) -> list[ModelMessage]:
        """Return the messages as they are: Pydantic AI would add notes to texts that look like its own markup."""
        return messages


class TurnToolset(AbstractToolset[object]):
    """The tools of one turn. Their arguments are checked by `Toolset` and by the tools themselves."""

    id = "latchkey"

    def __init__(self, toolset: Toolset, unreadable_arguments: dict[str, str], max_steps: int) -> None:
        self._toolset = toolset
        self._unreadable_arguments = unreadable_arguments
        self._tools = {tool.name: self._tool(tool, max_steps) for tool in toolset.tools}

    async def get_tools(self, ctx: RunContext[object]) -> dict[str, ToolsetTool[object]]:
        return self._tools

    async def call_tool(
        self, name: str, tool_args: dict[str, Any], ctx: RunContext[object], tool: ToolsetTool[object]
    ) -> str:
        """Raises `ToolsUnavailable` if the call has no result: it may have had an effect, so the turn must end."""
        call_id = ctx.tool_call_id or ""
        arguments = self._unreadable_arguments.get(call_id, tool_args[_ARGUMENTS])
        try:
            return await self._toolset.call(call_id, name, arguments)
        except Failure:
            raise
        except Exception as error:
            raise tools_lost() from error

    def _tool(self, tool: Tool, max_steps: int) -> ToolsetTool[object]:
        definition = ToolDefinition(name=tool.name, sequential=True)
        return ToolsetTool(
            toolset=self, tool_def=definition, max_retries=max_steps, args_validator=_UncheckedArguments()
        )


class _UncheckedArguments:
    """Passes the JSON of the arguments on as it came, in place of the validator that Pydantic AI expects."""

    def validate_json(self, input: str | bytes | bytearray, **_: Any) -> dict[str, Any]:
        return {_ARGUMENTS: input}

    def validate_python(self, input: Any, **_: Any) -> dict[str, Any]:
        raise TypeError(input)  # `_parts` gives Pydantic AI text only


def _parts(item: TResponseOutputItem) -> Iterator[TextPart | ToolCallPart]:
    """Yield what Pydantic AI needs to go on. Raises for arguments that no MCP client can send."""
    if item.type == "function_call":
        to_json(parse_object(item.arguments))
        yield ToolCallPart(item.name, item.arguments, item.call_id)
    elif item.type == "message":
        yield TextPart(text_of(item.model_dump()["content"]))


def _input_items(message: ModelMessage) -> Iterator[Any]:
    """Yield a message of the turn in the form of OpenAI's APIs."""
    if isinstance(message, ModelResponse):
        output: list[Any] = (message.provider_details or {})[_OUTPUT]
        yield from (item.model_dump(exclude_unset=True) for item in output)
        return
    for part in message.parts:
        if isinstance(part, UserPromptPart):
            yield {"role": "user", "content": part.content}
        elif isinstance(part, ToolReturnPart):
            yield {"type": "function_call_output", "call_id": part.tool_call_id, "output": part.model_response_str()}
