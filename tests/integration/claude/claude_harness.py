"""The harness of the tests with the real Claude CLI: its processes and folders as seen from outside."""

import asyncio
import sys
from collections.abc import AsyncIterator, Callable
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
TIMEOUT_S = 20


@dataclass(kw_only=True)
class ClaudeHarness(AgentHarness):
    """`folder` is the parent of the agent's workspace root."""

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
        return [workspace for root in self.roots for workspace in root.iterdir()]


@asynccontextmanager
async def claude_harness(folder: Path, *, path: Path | None = None) -> AsyncIterator[ClaudeHarness]:
    tools = ToolServer()
    async with model_server() as model, tool_endpoint(tools) as endpoint:
        cli = cli_for(model, path)
        agent = ClaudeAgent(tools.connect, cli, mcp_url=endpoint.url, workspace_parent=folder)
        try:
            yield ClaudeHarness(agent=agent, model=model, tools=tools, endpoint=endpoint, folder=folder)
        finally:
            await agent.aclose()


def cli_for(model: ModelServer, path: Path | None = None) -> ClaudeCli:
    cli = path or find_cli()
    assert cli, "The development dependencies contain the Claude CLI."
    return ClaudeCli(path=cli, model="fake", api_key=API_KEY, base_url=model.base_url.removesuffix("/v1"))


def fake_cli(folder: Path, program: str) -> Path:
    """Create an executable Python program that replaces the CLI."""
    path = folder / "claude"
    path.write_text(f"#!{sys.executable} -I\n{program}")
    path.chmod(0o755)
    return path


def processes_in(folder: Path) -> list[int]:
    """The processes whose working directory is below the folder, also if the folder was removed."""
    pids = []
    for process in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            if (process / "cwd").readlink().is_relative_to(folder):
                pids.append(int(process.name))
    return pids


async def wait_until_true(condition: Callable[[], object]) -> None:
    """Poll a condition. Raises `TimeoutError` after `TIMEOUT_S`."""
    async with asyncio.timeout(TIMEOUT_S):
        while not condition():  # noqa: ASYNC110 - the condition depends on other processes
            await asyncio.sleep(0.01)
