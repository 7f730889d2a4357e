"""The Claude CLI, with a scripted model that makes it call tools."""

import asyncio
import json
import os
from asyncio.subprocess import DEVNULL, PIPE, Process
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from latchkey.infrastructure.agents.claude.cli import find_cli
from tests.fakes.anthropic_events import TOOL_PREFIX, anthropic_events
from tests.fakes.model_script import Reply, Step, calls, says
from tests.fakes.model_server import ModelServer, model_server
from tests.interop.client import Endpoint, Era, HttpEndpoint, Refused, ToolResult
from tests.polling import TIMEOUT_S

_LINE_LIMIT = 2**22
_ARGUMENTS = (
    *("-p", "--input-format", "stream-json", "--output-format", "stream-json", "--verbose", "--model", "fake"),
    *("--bare", "--no-session-persistence", "--strict-mcp-config", "--mcp-config", "mcp.json"),
    *("--allowedTools", "mcp__latchkey", "--tools", "ListMcpResourcesTool,ReadMcpResourceTool"),
)


@dataclass(frozen=True)
class Claude:
    process: Process
    model: ModelServer
    version: None = None

    async def tools(self) -> list[str]:
        init = await self._run_turn()
        return [tool.removeprefix(TOOL_PREFIX) for tool in init["tools"] if tool.startswith(TOOL_PREFIX)]

    async def call(self, name: str, arguments: dict[str, Any]) -> ToolResult:
        return await self._call(calls((name, json.dumps(arguments))))

    async def resources(self) -> list[str]:
        listed = await self._call(_own_tool("ListMcpResourcesTool", server="latchkey"))
        nothing = listed.text.startswith("No resources found")
        return [] if nothing else [one["uri"] for one in listed.content]

    async def read(self, uri: str) -> str:
        items = await self._call(_own_tool("ReadMcpResourceTool", server="latchkey", uri=uri))
        return str(items.content["contents"][0]["text"])

    async def connect(self) -> None:
        """Raises `Refused` if the CLI reports no connection: it would continue without the tools."""
        ((name, status),) = [(one["name"], one["status"]) for one in (await self._run_turn())["mcp_servers"]]
        if status != "connected":
            raise Refused(f"{name}: {status}")

    async def _call(self, step: Step) -> ToolResult:
        """Let the model call the tool, and return the result that it receives."""
        self.model.script.append(step)
        await self._run_turn()
        (block,) = self.model.requests[-1].body["messages"][-1]["content"]
        if str(block["content"]).startswith("<tool_use_error>"):
            raise Refused(block["content"])
        return ToolResult(block["content"], block.get("is_error", False))

    async def _run_turn(self) -> Any:
        """Run a turn. Returns its init message, which lists tools and servers."""
        self.model.script.append(says("Done."))
        assert self.process.stdin
        message = {"type": "user", "message": {"role": "user", "content": "Go on."}}
        self.process.stdin.write(json.dumps(message).encode() + b"\n")
        init = await self._line("init")
        await self._line("success")
        return init

    async def _line(self, subtype: str) -> Any:
        assert self.process.stdout
        async with asyncio.timeout(TIMEOUT_S):
            while line := await self.process.stdout.readline():
                output = json.loads(line)
                if output.get("subtype") == subtype:
                    return output
        raise Refused(f"The CLI ended before its message {subtype}.")


@asynccontextmanager
async def claude(endpoint: Endpoint, _: Era) -> AsyncIterator[Claude]:
    cli = find_cli()
    assert cli, "The set-up for development brings the Claude CLI."
    async with model_server() as model:
        with TemporaryDirectory() as home:
            _write_config(Path(home), endpoint)
            process = await asyncio.create_subprocess_exec(
                *(cli, *_ARGUMENTS),
                cwd=home,
                env=_environment(home, model),
                stdin=PIPE,
                stdout=PIPE,
                stderr=DEVNULL,
                limit=_LINE_LIMIT,
            )
            try:
                client = Claude(process, model)
                await client.connect()
                yield client
            finally:
                process.terminate()
                await process.wait()


def _write_config(home: Path, endpoint: Endpoint) -> None:
    (home / "mcp.json").write_text(json.dumps({"mcpServers": {"latchkey": _server(endpoint)}}))


def _server(endpoint: Endpoint) -> dict[str, Any]:
    if isinstance(endpoint, HttpEndpoint):
        return {"type": "http", "url": endpoint.url, "headers": {"Authorization": f"Bearer {endpoint.bearer}"}}
    return {"command": endpoint.command, "args": endpoint.args, "env": endpoint.env}


def _own_tool(name: str, **arguments: str) -> Step:
    """A call of a built-in tool of the CLI, whose name has no prefix."""
    events, end = anthropic_events(calls((name, json.dumps(arguments))))
    return Reply(body=b"".join([*events, *end]).replace(TOOL_PREFIX.encode(), b""), media_type="text/event-stream")


def _environment(home: str, model: ModelServer) -> dict[str, str]:
    return {
        "PATH": os.environ["PATH"],
        "HOME": home,
        "TMPDIR": home,
        "ANTHROPIC_API_KEY": "none",
        "ANTHROPIC_BASE_URL": model.base_url.removesuffix("/v1"),
        "CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC": "1",
        "DISABLE_AUTOUPDATER": "1",
        "ENABLE_TOOL_SEARCH": "false",
    }
