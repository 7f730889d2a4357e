"""Calls that the clients in `clients/` make in processes of their own, and the sources of the packages."""

import asyncio
import json
import os
import shutil
import subprocess
import sys
from asyncio import StreamReader, StreamWriter
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from tests.browser.backend import Backend
from tests.node import environment, installed, node, npm
from tests.polling import TIMEOUT_S
from tests.schemas import DOCS

FOLDER = Path(__file__).parent
ROOT = FOLDER.parents[2]
TYPESCRIPT, PYTHON = ROOT / "clients/typescript", ROOT / "clients/python"
CLIENTS = ("TypeScript client", "Python client")
TEXT = [f"word{number} " for number in range(8)]

clients = pytest.mark.parametrize("client", CLIENTS)


def copy_sources(home: Path) -> Path:
    """Copy the sources of the TypeScript client, with what it is generated from. Returns their folder."""
    folder = home / "clients/typescript"
    ignored = shutil.ignore_patterns("node_modules", "dist", ".installing")
    shutil.copytree(installed(TYPESCRIPT), folder, ignore=ignored)
    (folder / "node_modules").symlink_to(TYPESCRIPT / "node_modules")
    (home / "docs").mkdir()
    shutil.copy(DOCS / "openapi.json", home / "docs")
    return folder


@dataclass
class Call:
    """A call that a client makes in a process of its own."""

    process: Process
    events: list[list[Any]] = field(default_factory=list)
    text: str | None = None
    """The answer after the last event, as the client's own function makes it."""

    async def read(self) -> dict[str, Any]:
        """Wait for the next line of output; empty at the end."""
        assert self.process.stdout is not None
        async with asyncio.timeout(TIMEOUT_S):
            line = await self.process.stdout.readline()
        output: dict[str, Any] = json.loads(line or b"{}")
        if "event" in output:
            self.events.append(output["event"])
        self.text = output.get("text", self.text)
        return output

    async def read_text(self) -> None:
        """Wait for the next piece of text."""
        while (await self.read())["event"][1] != "message.delta":
            pass

    async def finish(self) -> dict[str, Any]:
        """Read all events. Returns the last output."""
        last: dict[str, Any] = {}
        while output := await self.read():
            last = output
        assert await self.process.wait() == 0
        return last

    def check_events(self, last: str = "turn.completed", text: list[str] = TEXT) -> None:
        """Each event was received once, in order, up to the last one, and the answer is this text."""
        assert [event[0] for event in self.events] == list(range(1, len(self.events) + 1))
        assert (self.events[-1][1], self.text) == (last, "".join(text))


@asynccontextmanager
async def calling(client: str, package: Path, url: str, user: dict[str, str], **call: Any) -> AsyncIterator[Call]:
    """Start a client that makes this call."""
    variables = {"CALL": json.dumps({"url": url, "token": user["token"], "options": {}, **call})}
    if client == "TypeScript client":
        command = [node(), FOLDER / "call.mjs", package / "dist/index.js"]
    else:
        command = [Path(sys.executable), FOLDER / "call.py"]
        variables["PYTHONPATH"] = str(PYTHON / "src")
    process = await asyncio.create_subprocess_exec(*command, stdout=PIPE, env={**os.environ, **variables}, limit=2**20)
    try:
        yield Call(process)
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


@asynccontextmanager
async def answering(answer: Callable[[str, StreamWriter], Awaitable[None]]) -> AsyncIterator[str]:
    """A server that answers each request with what the function writes. It is given the head in small letters."""

    async def serve(reader: StreamReader, writer: StreamWriter) -> None:
        await answer((await reader.readuntil(b"\r\n\r\n")).decode().lower(), writer)
        await writer.drain()
        writer.close()

    async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"


async def script(backend: Backend, *pieces: str) -> None:
    """The model answers with these pieces, each when it is released."""
    await backend.reset()
    await backend.handlers["script_model"]([{"says": pieces, "paced": True}])


async def release(backend: Backend, count: int) -> None:
    await backend.handlers["send_pieces"](count)


def run_npm(folder: Path, *arguments: str) -> None:
    done = subprocess.run(
        npm(*arguments), cwd=folder, env=environment(), capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
