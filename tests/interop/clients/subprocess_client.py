"""Clients in separate programs, controlled line by line: the two TypeScript SDKs, and fastmcp."""

import asyncio
import json
import subprocess
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from tests.interop.client import Connect, Endpoint, Era, Refused, ToolResult
from tests.node import environment, installed, node

FOLDER = Path(__file__).parents[1]
INTEROP_PYTHON = FOLDER.parents[1] / ".venv/interop/bin/python"
"""A separate environment for packages that the service does not need; `make interop` creates it."""

_LINE_LIMIT = 2**20


@dataclass(frozen=True)
class SubprocessClient:
    """A running program that has connected."""

    process: Process
    version: str | None

    async def tools(self) -> list[str]:
        return list(await self._do("tools"))

    async def call(self, name: str, arguments: dict[str, Any]) -> ToolResult:
        output = await self._do("call", name=name, arguments=arguments)
        return ToolResult(output["text"], output["is_error"], output["content"])

    async def resources(self) -> list[str]:
        return list(await self._do("resources"))

    async def read(self, uri: str) -> str:
        return str(await self._do("read", uri=uri))

    async def _do(self, command: str, **options: Any) -> Any:
        assert self.process.stdin
        self.process.stdin.write(json.dumps({"command": command, **options}).encode() + b"\n")
        return await _read_reply(self.process)


def typescript(program: str) -> Connect:
    """One of the TypeScript SDKs."""

    @asynccontextmanager
    async def enter(endpoint: Endpoint, era: Era) -> AsyncIterator[SubprocessClient]:
        await asyncio.to_thread(installed, FOLDER)
        async with _running([node(), FOLDER / "programs" / program], endpoint, era) as client:
            yield client

    return enter


@asynccontextmanager
async def fastmcp(endpoint: Endpoint, era: Era) -> AsyncIterator[SubprocessClient]:
    async with _running([INTEROP_PYTHON, FOLDER / "programs/fastmcp_4.py"], endpoint, era) as client:
        yield client


@asynccontextmanager
async def _running(command: list[Path], endpoint: Endpoint, era: Era) -> AsyncIterator[SubprocessClient]:
    variables = environment(ENDPOINT=json.dumps({**asdict(endpoint), "era": era}))
    # Its standard error is that of the tests, which pytest shows on a failure.
    process = await asyncio.create_subprocess_exec(*command, stdin=PIPE, stdout=PIPE, env=variables, limit=_LINE_LIMIT)
    try:
        yield SubprocessClient(process, await _read_reply(process))
    finally:
        assert process.stdin
        process.stdin.close()
        try:
            await asyncio.wait_for(process.wait(), 10)
        except TimeoutError:
            process.kill()
            raise subprocess.TimeoutExpired(str(command), 10) from None


async def _read_reply(process: Process) -> Any:
    assert process.stdout
    line = json.loads(await process.stdout.readline())
    if "refused" in line:
        raise Refused(line["refused"])
    return line["ok"]
