"""What Pydantic AI does beside running turns is switched off."""

import subprocess
import sys
from pathlib import Path

from latchkey.infrastructure.agents.pydantic_ai import agent

ROOT = Path(__file__).parents[3]
ONE_TURN = """
import asyncio

from latchkey.infrastructure.agents.pydantic_ai.agent import PydanticAIAgent
from latchkey.infrastructure.agents.scripted.agent import RehearsalModel
from tests.contract.agents.agent_harness import AgentHarness
from tests.fakes.tool_server import ToolServer


async def run_turn():
    tools = ToolServer()
    url = "http://rehearsal.invalid/v1"
    agent = PydanticAIAgent(tools.connect, model="x", api_key="none", base_url=url, transport=RehearsalModel())
    harness = AgentHarness(agent, None, tools)
    print([type(event).__name__ async for event in agent.run(harness.agent_run())][-1])


asyncio.run(run_turn())
"""


def test_turn_prints_nothing() -> None:
    """Pydantic AI greets the watcher of its first run, a person at a terminal or a coding agent."""
    environment = {"AI_AGENT": "1", "PYTHONPATH": str(ROOT)}
    process = subprocess.run(
        [sys.executable, "-c", ONE_TURN], cwd=ROOT, env=environment, capture_output=True, text=True, check=False
    )

    assert (process.returncode, process.stdout, process.stderr) == (0, "ModelCall\n", "")


def test_agent_is_not_instrumented() -> None:
    """Traces would have the texts of conversations."""
    assert agent._AGENT.instrument is False
