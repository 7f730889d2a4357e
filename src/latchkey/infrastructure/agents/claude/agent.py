"""The agent that has the Claude CLI carry a turn, in a process of its own that can do nothing but call our tools."""

import asyncio
import os
from collections.abc import AsyncGenerator
from contextlib import aclosing
from functools import partial
from pathlib import Path

from latchkey.domain.agent import AgentEvent, AgentRun
from latchkey.domain.errors import ModelUnavailable
from latchkey.infrastructure.agents.claude.cli import ClaudeCli, arguments, environment, write_config
from latchkey.infrastructure.agents.claude.events import CliEventParser
from latchkey.infrastructure.agents.claude.history import exchanges
from latchkey.infrastructure.agents.claude.output import ResultLine, read_line
from latchkey.infrastructure.agents.claude.process import ClaudeProcess
from latchkey.infrastructure.agents.claude.workspace import Workspace, WorkspaceRoot
from latchkey.infrastructure.agents.toolset import Connect, open_toolset
from latchkey.infrastructure.agents.turn_tasks import AgentEventStream, TurnTasks

_PROCESSES_PER_CORE = 2


class ClaudeAgent:
    """Starts one process a turn, and no more than `at_once` at a time: two per core unless told otherwise.

    `mcp_url` is where a process on this machine reaches our MCP endpoint. `connect` reaches the same tools from
    here; it is asked what the turn's token grants, which is what the CLI must then find, no more and no less.
    """

    name = "claude"

    def __init__(
        self,
        connect: Connect,
        cli: ClaudeCli,
        *,
        mcp_url: str,
        at_once: int | None = None,
        folder: Path | None = None,
    ) -> None:
        self._connect = connect
        self._cli = cli
        self._mcp_url = mcp_url
        self._places = asyncio.Semaphore(at_once or _PROCESSES_PER_CORE * (os.cpu_count() or 1))
        self._house = WorkspaceRoot(folder)
        self._turns = TurnTasks()

    async def run(self, agent_run: AgentRun) -> AsyncGenerator[AgentEvent, None]:
        """The events of the turn. Closing the iterator ends the process and removes what it has written."""
        async with aclosing(self._turns.stream(partial(self._carry, agent_run))) as events:
            async for event in events:
                yield event

    async def aclose(self) -> None:
        """End whatever runs."""
        await self._turns.aclose()
        self._house.close()

    async def _carry(self, agent_run: AgentRun, tell: AgentEventStream) -> None:
        """A task of its own, so that whatever cancels the turn does it once, and the process is seen to its end."""
        with tell:
            async with open_toolset(self._connect, agent_run) as toolset:
                tools = [tool.name for tool in toolset.tools]
            async with self._places:
                with self._house.home() as home:
                    write_config(home, agent_run, self._mcp_url)
                    await self._visit(agent_run, tools, home, tell)

    async def _visit(self, agent_run: AgentRun, tools: list[str], home: Workspace, tell: AgentEventStream) -> None:
        command = [str(self._cli.path), *arguments(self._cli, agent_run, tools, home)]
        process = await ClaudeProcess.start(command, environment(self._cli, agent_run, self._mcp_url, home), home.work)
        try:
            narration = CliEventParser(tools)
            for lines in exchanges(agent_run):
                await process.write(lines)
                await _listen(process, narration, tell)
            await process.kill()
            narration.check_answer()
        finally:
            await process.end()


async def _listen(process: ClaudeProcess, narration: CliEventParser, tell: AgentEventStream) -> None:
    """Up to the result that confirms or answers what was written last."""
    while text := await process.read():
        line = read_line(text)
        if line is None:
            continue
        for event in narration.hear(line):
            await tell.send(event)
        if isinstance(line, ResultLine):
            return
    raise ModelUnavailable("The Claude CLI ended before it had answered: see what `latchkey doctor` says of it.")
