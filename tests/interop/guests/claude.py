"""The Claude CLI, and a scripted model that has it call tools."""

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
from tests.interop.guest import Answer, Door, Era, HttpDoor, TurnedAway
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
        init = await self._talk()
        return [tool.removeprefix(TOOL_PREFIX) for tool in init["tools"] if tool.startswith(TOOL_PREFIX)]

    async def call(self, name: str, arguments: dict[str, Any]) -> Answer:
        return await self._use(calls((name, json.dumps(arguments))))

    async def resources(self) -> list[str]:
        listed = await self._use(_own_tool("ListMcpResourcesTool", server="latchkey"))
        nothing = listed.text.startswith("No resources found")
        return [] if nothing else [one["uri"] for one in listed.content]

    async def read(self, uri: str) -> str:
        found = await self._use(_own_tool("ReadMcpResourceTool", server="latchkey", uri=uri))
        return str(found.content["contents"][0]["text"])

    async def connect(self) -> None:
        """Raises `TurnedAway` if it says that it is not connected: it would go on without the tools."""
        ((name, status),) = [(one["name"], one["status"]) for one in (await self._talk())["mcp_servers"]]
        if status != "connected":
            raise TurnedAway(f"{name}: {status}")

    async def _use(self, step: Step) -> Answer:
        """Have the model ask for that, and take what it is then told."""
        self.model.script.append(step)
        await self._talk()
        (block,) = self.model.requests[-1].body["messages"][-1]["content"]
        if str(block["content"]).startswith("<tool_use_error>"):
            raise TurnedAway(block["content"])
        return Answer(block["content"], block.get("is_error", False))

    async def _talk(self) -> Any:
        """A turn. Answers how it began: with a list of what there is."""
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
                said = json.loads(line)
                if said.get("subtype") == subtype:
                    return said
        raise TurnedAway(f"It ended before it said {subtype}.")


@asynccontextmanager
async def claude(door: Door, _: Era) -> AsyncIterator[Claude]:
    cli = find_cli()
    assert cli, "The set-up for development brings the Claude CLI."
    async with model_server() as model:
        with TemporaryDirectory() as home:
            _furnish(Path(home), door)
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
                guest = Claude(process, model)
                await guest.connect()
                yield guest
            finally:
                process.terminate()
                await process.wait()


def _furnish(home: Path, door: Door) -> None:
    (home / "mcp.json").write_text(json.dumps({"mcpServers": {"latchkey": _server(door)}}))


def _server(door: Door) -> dict[str, Any]:
    if isinstance(door, HttpDoor):
        return {"type": "http", "url": door.url, "headers": {"Authorization": f"Bearer {door.bearer}"}}
    return {"command": door.command, "args": door.args, "env": door.env}


def _own_tool(name: str, **arguments: str) -> Step:
    """A call of one of the CLI's own tools, whose name has no prefix."""
    said, end = anthropic_events(calls((name, json.dumps(arguments))))
    return Reply(body=b"".join([*said, *end]).replace(TOOL_PREFIX.encode(), b""), media_type="text/event-stream")


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
