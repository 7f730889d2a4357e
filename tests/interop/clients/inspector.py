"""The Inspector CLI: each request is a separate run of the program."""

import asyncio
import json
from asyncio.subprocess import DEVNULL, PIPE
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from tests.interop.client import Endpoint, Era, HttpEndpoint, Refused, ToolResult
from tests.interop.clients.subprocess_client import FOLDER
from tests.node import environment, installed, node

_PROGRAM = "node_modules/@modelcontextprotocol/inspector/clients/launcher/build/index.js"


@dataclass(frozen=True)
class Inspector:
    """`home` is the folder for its saved state."""

    endpoint: Endpoint
    era: Era
    home: Path
    version: None = None

    async def tools(self) -> list[str]:
        return [tool["name"] for tool in (await self._run("tools/list"))["tools"]]

    async def call(self, name: str, arguments: dict[str, Any]) -> ToolResult:
        result = await self._run("tools/call", "--tool-name", name, "--tool-args-json", json.dumps(arguments))
        return ToolResult(result["content"][0]["text"], result["isError"], result.get("structuredContent"))

    async def resources(self) -> list[str]:
        return [one["uri"] for one in (await self._run("resources/list"))["resources"]]

    async def read(self, uri: str) -> str:
        return str((await self._run("resources/read", "--uri", uri))["contents"][0]["text"])

    async def _run(self, method: str, *arguments: str) -> Any:
        options = ["--format", "json", "--protocol-era", self.era, "--stored-auth-only", "--method", method, *arguments]
        command: list[str | Path] = [node(), FOLDER / _PROGRAM, "--cli", *_target(self.endpoint), *options]
        process = await asyncio.create_subprocess_exec(
            *command,
            stdin=DEVNULL,
            stdout=PIPE,
            stderr=PIPE,
            env=environment(HOME=str(self.home)),
        )
        output, error = await process.communicate()
        response = json.loads(output) if output else {}
        if "result" not in response:
            raise Refused(error.decode())
        return response["result"]


@asynccontextmanager
async def inspector(endpoint: Endpoint, era: Era) -> AsyncIterator[Inspector]:
    await asyncio.to_thread(installed, FOLDER)
    with TemporaryDirectory() as home:
        yield Inspector(endpoint, era, Path(home))


def _target(endpoint: Endpoint) -> list[str]:
    if isinstance(endpoint, HttpEndpoint):
        return [endpoint.url, "--transport", "http", "--header", f"Authorization: Bearer {endpoint.bearer}"]
    variables = [word for name, value in endpoint.env.items() for word in ("-e", f"{name}={value}")]
    return [*variables, endpoint.command, *endpoint.args]
