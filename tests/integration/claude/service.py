"""A service that runs one turn, in a process of its own: something to kill.

python -m tests.integration.claude.service FOLDER MODEL_BASE_URL MCP_URL
"""

import asyncio
import sys
from pathlib import Path

from latchkey.infrastructure.agents.claude.agent import ClaudeAgent
from tests.contract.agents.stage import Stage
from tests.fakes.model_server import ModelServer
from tests.fakes.tool_server import ToolServer
from tests.integration.claude.scene import a_cli


async def main(folder: Path, base_url: str, mcp_url: str) -> None:
    model, tools = ModelServer(base_url), ToolServer()
    agent = ClaudeAgent(tools.connect, a_cli(model), mcp_url=mcp_url, folder=folder)
    await Stage(agent, model, tools).play()


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1]), sys.argv[2], sys.argv[3]))
