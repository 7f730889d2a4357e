"""Everything that relies on undocumented parts of the OpenAI Agents SDK: see `tests/unit/agents/test_agents_sdk.py`."""

from dataclasses import dataclass, field
from typing import Any

from agents import Agent, FunctionTool, RunContextWrapper
from agents import Tool as AgentTool
from agents.models.chatcmpl_converter import Converter
from agents.models.chatcmpl_stream_handler import ChatCmplStreamHandler
from agents.models.fake_id import FAKE_RESPONSES_ID
from agents.tool_context import ToolContext
from mcp.types import Tool

from latchkey.infrastructure.agents.toolset import Toolset

__all__ = ["FAKE_RESPONSES_ID", "ChatCmplStreamHandler", "Converter", "TurnAgent", "function_tools"]


@dataclass
class TurnAgent(Agent[Toolset]):
    """An agent whose tools are in `turn_tools` instead of `tools`. Its run context is the toolset.

    The SDK computes a key from everything in `tools`, twice in a turn, to compare agents. A turn has only one agent.
    """

    turn_tools: list[FunctionTool] = field(default_factory=list)

    async def get_all_tools(self, _: RunContextWrapper[Toolset]) -> list[AgentTool]:
        return [*self.turn_tools]


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


async def _call_tool(context: ToolContext[Toolset], arguments: str) -> Any:
    return await context.context.call(context.tool_call_id, context.tool_name, arguments)
