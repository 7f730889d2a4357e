"""Runs one turn in a process of its own, which a test can kill.

python -m tests.integration.claude.turn_process FOLDER MODEL_BASE_URL MCP_URL
"""

import asyncio
import sys
from pathlib import Path

from latchkey.infrastructure.agents.claude.agent import ClaudeAgent
from tests.contract.agents.agent_harness import AgentHarness
from tests.fakes.model_server import ModelServer
from tests.fakes.tool_server import ToolServer
from tests.integration.claude.claude_harness import cli_for


async def main(folder: Path, base_url: str, mcp_url: str) -> None:
    model, tools = ModelServer(base_url), ToolServer()
    agent = ClaudeAgent(tools.connect, cli_for(model), mcp_url=mcp_url, workspace_parent=folder)
    await AgentHarness(agent, model, tools).run_turn()


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1]), sys.argv[2], sys.argv[3]))
