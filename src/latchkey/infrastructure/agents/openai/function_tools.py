"""The tools of a turn as the OpenAI Agents SDK takes them, and the agent that has them."""

from dataclasses import dataclass, field
from typing import Any

from agents import Agent, FunctionTool, RunContextWrapper
from agents import Tool as AgentTool
from agents.tool_context import ToolContext
from mcp.types import Tool

from latchkey.infrastructure.agents.toolset import Toolset


@dataclass
class TurnAgent(Agent[Toolset]):
    """Says which tools it has when it is asked, and not before.

    Twice in a turn the SDK makes a key of all that it finds in `tools`, though there is no other agent to tell this
    one from: 0.25 ms of a turn with a tool call. Runs with the toolbox as their context.
    """

    offered: list[FunctionTool] = field(default_factory=list)

    async def get_all_tools(self, _: RunContextWrapper[Toolset]) -> list[AgentTool]:
        return [*self.offered]


def function_tools(tools: list[Tool]) -> list[FunctionTool]:
    return [_function_tool(tool) for tool in tools]


def _function_tool(tool: Tool) -> FunctionTool:
    return FunctionTool(
        name=tool.name,
        description=tool.description or "",
        params_json_schema={"properties": {}, **tool.input_schema},
        on_invoke_tool=_call,
        strict_json_schema=False,
    )


async def _call(context: ToolContext[Toolset], arguments: str) -> Any:
    return await context.context.call(context.tool_call_id, context.tool_name, arguments)
