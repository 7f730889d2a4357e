"""The agent that runs each turn in a process of the Claude CLI, which can only call our tools."""

from collections.abc import AsyncGenerator
from contextlib import aclosing
from functools import partial
from pathlib import Path

from msgspec.structs import replace

from latchkey.domain.agent import RUN_METRICS, AgentEvent, AgentRun
from latchkey.domain.errors import ContextTooLong, ModelUnavailable
from latchkey.infrastructure.agents.claude.cli import ClaudeCli, command_arguments, environment, write_config
from latchkey.infrastructure.agents.claude.event_parser import CliEventParser
from latchkey.infrastructure.agents.claude.process import ClaudeProcess
from latchkey.infrastructure.agents.claude.protocol import (
    OutputLine,
    ResultLine,
    StreamLine,
    SystemLine,
    input_batches,
    newest_half,
    parse_output_line,
)
from latchkey.infrastructure.agents.claude.workspace import Workspace, WorkspaceRoot
from latchkey.infrastructure.agents.toolset import Connect, open_toolset
from latchkey.infrastructure.agents.turn_tasks import AgentEventStream, TurnTasks

_OK = 200


class ClaudeAgent:
    """Starts one process for each turn. The caller limits how many turns run at once.

    The CLI reaches our MCP endpoint at `mcp_url`. The agent itself uses `connect` to list the tools that the turn's
    token grants: the CLI must find exactly these tools, or the turn fails.
    """

    name = "claude"

    def __init__(
        self,
        connect: Connect,
        cli: ClaudeCli,
        *,
        mcp_url: str,
        workspace_parent: Path | None = None,
    ) -> None:
        self._connect = connect
        self._cli = cli
        self.model = cli.model
        self._mcp_url = mcp_url
        self._workspaces = WorkspaceRoot(workspace_parent)
        self._turns = TurnTasks()

    async def run(self, agent_run: AgentRun) -> AsyncGenerator[AgentEvent, None]:
        """The events of the turn while it runs. Closing the iterator ends the process and removes its files."""
        async with aclosing(self._turns.stream(partial(self._run_turn, agent_run))) as events:
            async for event in events:
                yield event

    async def aclose(self) -> None:
        """End all processes and remove their files."""
        await self._turns.aclose()
        self._workspaces.close()

    async def _run_turn(self, agent_run: AgentRun, events: AgentEventStream) -> None:
        with events:
            async with open_toolset(self._connect, agent_run) as toolset:
                tools = [tool.name for tool in toolset.tools]
            parser = CliEventParser(tools, agent_run.steps)
            try:
                await self._run_in_workspace(agent_run, parser, events)
            except ContextTooLong:
                if parser.has_begun or not agent_run.history:
                    raise
                shorter = replace(agent_run, history=newest_half(agent_run.history))
                await self._run_in_workspace(shorter, CliEventParser(tools, agent_run.steps), events)

    async def _run_in_workspace(self, agent_run: AgentRun, parser: CliEventParser, events: AgentEventStream) -> None:
        with self._workspaces.workspace() as workspace:
            write_config(workspace, agent_run, self._mcp_url, parser.tool_names)
            await self._run_process(agent_run, parser, workspace, events)

    async def _run_process(
        self, agent_run: AgentRun, parser: CliEventParser, workspace: Workspace, events: AgentEventStream
    ) -> None:
        command = [str(self._cli.path), *command_arguments(self._cli, agent_run, parser.tool_names, workspace)]
        variables = environment(self._cli, agent_run, self._mcp_url, workspace)
        process = await ClaudeProcess.start(command, variables, workspace.work)
        try:
            for lines in input_batches(agent_run):
                await process.write(lines)
                await _read_until_result(process, parser, events)
            await process.kill()
            parser.check_answer()
        finally:
            await process.terminate()


async def _read_until_result(process: ClaudeProcess, parser: CliEventParser, events: AgentEventStream) -> None:
    """Publish the events up to the result that confirms the last batch, or ends the turn."""
    while text := await process.read():
        line = parse_output_line(text)
        if line is None:
            continue
        _measure(line)
        for event in parser.feed(line):
            await events.send(event)
        if isinstance(line, ResultLine):
            return
    raise ModelUnavailable("The Claude CLI ended before it had answered: `latchkey doctor` checks its version.")


def _measure(line: OutputLine) -> None:
    """Note what the line says about the requests of the CLI to the model's server."""
    metrics = RUN_METRICS.get()
    if metrics is None:
        return
    if isinstance(line, SystemLine) and line.subtype == "api_retry":
        metrics.retries += 1
        metrics.upstream_status = line.error_status
    elif isinstance(line, StreamLine) and line.event.type == "message_start":
        metrics.upstream_status = _OK
    elif isinstance(line, ResultLine) and line.api_error_status is not None:
        metrics.upstream_status = line.api_error_status
