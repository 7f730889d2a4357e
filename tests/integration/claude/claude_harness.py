"""The real Claude CLI at work for a service of its own, and what a test sees of it from outside."""

import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from latchkey.infrastructure.agents.claude.agent import ClaudeAgent
from latchkey.infrastructure.agents.claude.cli import ClaudeCli, find_cli
from tests.contract.agents.agent_harness import API_KEY, AgentHarness
from tests.fakes.model_server import ModelServer, model_server
from tests.fakes.tool_endpoint import ToolEndpoint, tool_endpoint
from tests.fakes.tool_server import ToolServer

ROOT = Path(__file__).parents[3]


@dataclass(kw_only=True)
class ClaudeHarness(AgentHarness):
    """`folder` is where the agent keeps the workspaces of its processes."""

    agent: ClaudeAgent
    endpoint: ToolEndpoint
    folder: Path

    @property
    def processes(self) -> list[int]:
        return processes_in(self.folder)

    @property
    def roots(self) -> list[Path]:
        return list(self.folder.iterdir())

    @property
    def workspaces(self) -> list[Path]:
        return [home for house in self.roots for home in house.iterdir()]


@asynccontextmanager
async def claude_harness(
    folder: Path, *, path: Path | None = None, max_processes: int | None = None
) -> AsyncIterator[ClaudeHarness]:
    tools = ToolServer()
    async with model_server() as model, tool_endpoint(tools) as endpoint:
        cli = cli_for(model, path)
        agent = ClaudeAgent(
            tools.connect, cli, mcp_url=endpoint.url, max_processes=max_processes, workspace_parent=folder
        )
        try:
            yield ClaudeHarness(agent=agent, model=model, tools=tools, endpoint=endpoint, folder=folder)
        finally:
            await agent.aclose()


def cli_for(model: ModelServer, path: Path | None = None) -> ClaudeCli:
    found = path or find_cli()
    assert found, "The set-up for development brings the Claude CLI."
    return ClaudeCli(path=found, model="fake", api_key=API_KEY, base_url=model.base_url.removesuffix("/v1"))


def fake_cli(folder: Path, program: str) -> Path:
    """An executable Python program in the CLI's place."""
    path = folder / "claude"
    path.write_text(f"#!{sys.executable} -I\n{program}")
    path.chmod(0o755)
    return path


def processes_in(folder: Path) -> list[int]:
    """Whoever works somewhere in the folder, also after it was removed."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            if (process / "cwd").readlink().is_relative_to(folder):
                found.append(int(process.name))
    return found
