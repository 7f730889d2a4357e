"""A Node.js process that runs scenarios in Chromium. Their calls to the service and the model go to this process."""

import asyncio
import json
import shutil
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from latchkey.testing.processes import free_port
from tests.node import environment, installed, node

FOLDER = Path(__file__).parent
OUTPUT = FOLDER.parents[1] / "var" / "browser"
"""Where screenshots of failed scenarios are written."""

_LONGEST_LINE = 2**24
_TIMEOUT_S = 150.0

Handlers = Mapping[str, Callable[..., Awaitable[Any]]]


def find_chromium() -> str | None:
    """The path of a Chromium on the PATH, or None."""
    names = ("chromium", "chromium-browser", "google-chrome")
    return next((path for path in map(shutil.which, names) if path), None)


@dataclass(frozen=True)
class BrowserDriver:
    """Runs one scenario at a time. `origin` is that of the pages."""

    origin: str
    process: Process

    async def run(self, module: str, name: str, settings: dict[str, Any], handlers: Handlers) -> Any:
        """Run a scenario and return its result. Its calls go to `handlers`. Raises `AssertionError` if it fails."""
        handlers = {"install_page": install_page, **handlers}
        await self._send({"module": module, "name": name, **settings})
        async with asyncio.timeout(_TIMEOUT_S):
            while "call" in (message := await _receive(self.process)):
                await self._send(await _answer(message, handlers))
        assert "failure" not in message, message["failure"]
        return message["result"]

    async def _send(self, message: dict[str, Any]) -> None:
        assert self.process.stdin
        self.process.stdin.write(json.dumps(message).encode() + b"\n")
        await self.process.stdin.drain()


@asynccontextmanager
async def browser_driver(chromium: str) -> AsyncIterator[BrowserDriver]:
    folder = await asyncio.to_thread(installed, FOLDER)
    command: list[str | Path] = [node(), folder / "driver" / "main.mjs", chromium, str(free_port()), OUTPUT]
    process = await asyncio.create_subprocess_exec(
        *command, stdin=PIPE, stdout=PIPE, env=environment(), limit=_LONGEST_LINE
    )
    assert process.stdin
    try:
        yield BrowserDriver((await _receive(process))["origin"], process)
    finally:
        process.stdin.close()  # ends the driver, and the browser with it
        await process.wait()


async def install_page(page: str) -> None:
    """Install the packages of a page, if it has any of its own."""
    folder = FOLDER / "pages" / page
    if (folder / "package-lock.json").exists():
        await asyncio.to_thread(installed, folder)


async def _receive(process: Process) -> dict[str, Any]:
    assert process.stdout
    line = await process.stdout.readline()
    assert line, "The browser driver has ended."
    message: dict[str, Any] = json.loads(line)
    return message


async def _answer(message: dict[str, Any], handlers: Handlers) -> dict[str, Any]:
    try:
        value = await handlers[message["call"]](*message["args"])
    except Exception as error:  # noqa: BLE001  # the scenario decides what follows
        return {"answers": message["id"], "error": repr(error)}
    return {"answers": message["id"], "value": value}
