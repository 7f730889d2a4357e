"""The Inspector's command line: each thing it does is a run of its own."""

import asyncio
import json
from asyncio.subprocess import DEVNULL, PIPE
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from tests.interop.guest import Answer, Door, Era, HttpDoor, TurnedAway
from tests.interop.guests.driven import FOLDER
from tests.node import environment, installed, node

_PROGRAM = "node_modules/@modelcontextprotocol/inspector/clients/launcher/build/index.js"


@dataclass(frozen=True)
class Inspector:
    """`home` is where it would keep what it remembers."""

    door: Door
    era: Era
    home: Path
    version: None = None

    async def tools(self) -> list[str]:
        return [tool["name"] for tool in (await self._do("tools/list"))["tools"]]

    async def call(self, name: str, arguments: dict[str, Any]) -> Answer:
        result = await self._do("tools/call", "--tool-name", name, "--tool-args-json", json.dumps(arguments))
        return Answer(result["content"][0]["text"], result["isError"], result.get("structuredContent"))

    async def resources(self) -> list[str]:
        return [one["uri"] for one in (await self._do("resources/list"))["resources"]]

    async def read(self, uri: str) -> str:
        return str((await self._do("resources/read", "--uri", uri))["contents"][0]["text"])

    async def _do(self, method: str, *given: str) -> Any:
        options = ["--format", "json", "--protocol-era", self.era, "--stored-auth-only", "--method", method, *given]
        command: list[str | Path] = [node(), FOLDER / _PROGRAM, "--cli", *_target(self.door), *options]
        process = await asyncio.create_subprocess_exec(
            *command,
            stdin=DEVNULL,
            stdout=PIPE,
            stderr=PIPE,
            env=environment(HOME=str(self.home)),
        )
        said, complained = await process.communicate()
        answered = json.loads(said) if said else {}
        if "result" not in answered:
            raise TurnedAway(complained.decode())
        return answered["result"]


@asynccontextmanager
async def inspector(door: Door, era: Era) -> AsyncIterator[Inspector]:
    await asyncio.to_thread(installed, FOLDER)
    with TemporaryDirectory() as home:
        yield Inspector(door, era, Path(home))


def _target(door: Door) -> list[str]:
    if isinstance(door, HttpDoor):
        return [door.url, "--transport", "http", "--header", f"Authorization: Bearer {door.bearer}"]
    variables = [word for name, value in door.env.items() for word in ("-e", f"{name}={value}")]
    return [*variables, door.command, *door.args]
