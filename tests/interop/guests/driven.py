"""Clients that are programs of their own, driven line by line: the two TypeScript SDKs, and fastmcp."""

import asyncio
import json
import subprocess
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from tests.interop.guest import Answer, Door, Entry, Era, TurnedAway
from tests.node import environment, installed, node

FOLDER = Path(__file__).parents[1]
FASTMCP = FOLDER.parents[1] / ".venv/interop/bin/python"
"""An environment for what the service does not depend on; `make interop` makes it."""

_LINE_LIMIT = 2**20


@dataclass(frozen=True)
class Driven:
    """A running program, which has connected."""

    process: Process
    version: str | None

    async def tools(self) -> list[str]:
        return list(await self._do("tools"))

    async def call(self, name: str, arguments: dict[str, Any]) -> Answer:
        said = await self._do("call", name=name, arguments=arguments)
        return Answer(said["text"], said["is_error"], said["content"])

    async def resources(self) -> list[str]:
        return list(await self._do("resources"))

    async def read(self, uri: str) -> str:
        return str(await self._do("read", uri=uri))

    async def _do(self, command: str, **given: Any) -> Any:
        assert self.process.stdin
        self.process.stdin.write(json.dumps({"command": command, **given}).encode() + b"\n")
        return await _said(self.process)


def typescript(program: str) -> Entry:
    """One of the TypeScript SDKs."""

    @asynccontextmanager
    async def enter(door: Door, era: Era) -> AsyncIterator[Driven]:
        await asyncio.to_thread(installed, FOLDER)
        async with _running([node(), FOLDER / "programs" / program], door, era) as guest:
            yield guest

    return enter


@asynccontextmanager
async def fastmcp(door: Door, era: Era) -> AsyncIterator[Driven]:
    async with _running([FASTMCP, FOLDER / "programs/fastmcp_4.py"], door, era) as guest:
        yield guest


@asynccontextmanager
async def _running(command: list[Path], door: Door, era: Era) -> AsyncIterator[Driven]:
    told = environment(DOOR=json.dumps({**asdict(door), "era": era}))
    # What it says besides goes to the standard error of the tests, which pytest shows if they fail.
    process = await asyncio.create_subprocess_exec(*command, stdin=PIPE, stdout=PIPE, env=told, limit=_LINE_LIMIT)
    try:
        yield Driven(process, await _said(process))
    finally:
        assert process.stdin
        process.stdin.close()
        try:
            await asyncio.wait_for(process.wait(), 10)
        except TimeoutError:
            process.kill()
            raise subprocess.TimeoutExpired(str(command), 10) from None


async def _said(process: Process) -> Any:
    assert process.stdout
    line = json.loads(await process.stdout.readline())
    if "refused" in line:
        raise TurnedAway(line["refused"])
    return line["ok"]
