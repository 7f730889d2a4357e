"""The Claude CLI as a running process: what is written to it, what it says, and its end."""

import asyncio
import json
import os
import signal
from asyncio.subprocess import DEVNULL, PIPE, Process
from contextlib import suppress
from pathlib import Path
from typing import Any

from latchkey.domain.errors import ModelBadResponse, ModelUnavailable

MAX_LINE_BYTES = 8 * 1024 * 1024
MAX_OUTPUT_BYTES = 256 * 1024 * 1024
"""Some hundred bytes go with each word that the model says, and a file may have a MiB of them."""
GRACE_S = 2.0


class ClaudeProcess:
    """One process in a group of its own. Whoever starts it ends it."""

    def __init__(self, process: Process) -> None:
        self._process = process
        self._said = 0

    @classmethod
    async def start(cls, command: list[str], environment: dict[str, str], folder: Path) -> "ClaudeProcess":
        """Raises `ModelUnavailable` if there is no such program."""
        try:
            # What it writes to stderr may quote anything; it is not kept.
            process = await asyncio.create_subprocess_exec(
                *command,
                stdin=PIPE,
                stdout=PIPE,
                stderr=DEVNULL,
                cwd=folder,
                env=environment,
                start_new_session=True,
                limit=MAX_LINE_BYTES,
            )
        except OSError as error:
            raise ModelUnavailable("The Claude CLI cannot be started: check LATCHKEY_CLAUDE_CLI.") from error
        return cls(process)

    async def write(self, lines: list[dict[str, Any]]) -> None:
        """One line of JSON each. Whether it listens is seen from what it says."""
        assert self._process.stdin is not None  # noqa: S101 - it was started with a pipe
        with suppress(ConnectionError):
            self._process.stdin.writelines(json.dumps(line).encode() + b"\n" for line in lines)
            await self._process.stdin.drain()

    async def read(self) -> bytes:
        """The next line that it says; empty once it has ended. Raises `ModelBadResponse` if it says too much."""
        assert self._process.stdout is not None  # noqa: S101 - it was started with a pipe
        try:
            line = await self._process.stdout.readline()
        except ValueError as error:
            raise ModelBadResponse(f"The Claude CLI said more than {MAX_LINE_BYTES} bytes in one line.") from error
        self._said += len(line)
        if self._said > MAX_OUTPUT_BYTES:
            raise ModelBadResponse(f"The Claude CLI said more than {MAX_OUTPUT_BYTES} bytes.")
        return line

    async def end(self) -> None:
        """Ask the whole group to end, and soon make it."""
        self._signal(signal.SIGTERM)
        try:
            async with asyncio.timeout(GRACE_S):
                await self._process.wait()
        except TimeoutError:
            pass
        finally:
            self._signal(signal.SIGKILL)
        await self._process.wait()

    def _signal(self, number: signal.Signals) -> None:
        # Of a group that has ended, some systems say that it is not there, others that it is not ours.
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(self._process.pid, number)
