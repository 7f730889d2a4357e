"""The Claude CLI as a running process: what is written to it, what it says, and its end."""

import asyncio
import json
import os
import signal
from asyncio import StreamReader, StreamReaderProtocol, StreamWriter
from asyncio.streams import FlowControlMixin
from contextlib import suppress
from pathlib import Path
from subprocess import DEVNULL, PIPE, Popen
from typing import Any

from latchkey.domain.errors import ModelBadResponse, ModelUnavailable

MAX_LINE_BYTES = 8 * 1024 * 1024
MAX_OUTPUT_BYTES = 256 * 1024 * 1024
"""Some hundred bytes go with each word that the model says, and a file may have a MiB of them."""
GRACE_S = 2.0
NICE = 10
"""Its start is half a second of CPU, and nobody's request should wait for that."""


class ClaudeProcess:
    """One process in a group of its own. Whoever starts it ends it."""

    def __init__(self, process: Popen[bytes], stdin: StreamWriter, stdout: StreamReader) -> None:
        self._process = process
        self._stdin = stdin
        self._stdout = stdout
        self._said = 0

    @classmethod
    async def start(cls, command: list[str], environment: dict[str, str], folder: Path) -> "ClaudeProcess":
        """Raises `ModelUnavailable` if there is no such program.

        By the standard library, which does not copy our own process to start another: uvloop does, and everybody
        waits for that, 7 to 10 ms.
        """
        try:
            # What it writes to stderr may quote anything; it is not kept.
            process = Popen(  # noqa: ASYNC220, S603 - it takes half a millisecond; the operator's own choice of program
                command, stdin=PIPE, stdout=PIPE, stderr=DEVNULL, cwd=folder, env=environment, start_new_session=True
            )
        except OSError as error:
            raise ModelUnavailable("The Claude CLI cannot be started: check LATCHKEY_CLAUDE_CLI.") from error
        with suppress(ProcessLookupError):
            os.setpriority(os.PRIO_PROCESS, process.pid, NICE)
        connecting = asyncio.ensure_future(_connected(process))
        try:
            return cls(process, *await asyncio.shield(connecting))
        except asyncio.CancelledError:
            # Nobody holds it yet who could end it.
            await cls(process, *await connecting).kill()
            raise

    async def write(self, lines: list[dict[str, Any]]) -> None:
        """One line of JSON each. Whether it listens is seen from what it says."""
        with suppress(ConnectionError):
            self._stdin.writelines(json.dumps(line).encode() + b"\n" for line in lines)
            await self._stdin.drain()

    async def read(self) -> bytes:
        """The next line that it says; empty once it has ended. Raises `ModelBadResponse` if it says too much."""
        try:
            line = await self._stdout.readline()
        except ValueError as error:
            raise ModelBadResponse(f"The Claude CLI said more than {MAX_LINE_BYTES} bytes in one line.") from error
        self._said += len(line)
        if self._said > MAX_OUTPUT_BYTES:
            raise ModelBadResponse(f"The Claude CLI said more than {MAX_OUTPUT_BYTES} bytes.")
        return line

    async def end(self) -> None:
        """Ask the whole group to end, and soon make it."""
        _signal(self._process, signal.SIGTERM)
        try:
            async with asyncio.timeout(GRACE_S):
                await asyncio.to_thread(self._process.wait)
        except TimeoutError:
            pass
        finally:
            await self.kill()

    async def kill(self) -> None:
        """End the whole group at once: for one that has said all it had to, to ask first costs 30 ms for nothing."""
        _signal(self._process, signal.SIGKILL)
        await asyncio.to_thread(self._process.wait)
        self._stdin.close()


async def _connected(process: Popen[bytes]) -> tuple[StreamWriter, StreamReader]:
    """The process's pipes as streams of the running loop."""
    loop = asyncio.get_running_loop()
    reader = StreamReader(MAX_LINE_BYTES, loop)
    await loop.connect_read_pipe(lambda: StreamReaderProtocol(reader, loop=loop), process.stdout)
    transport, protocol = await loop.connect_write_pipe(lambda: FlowControlMixin(loop), process.stdin)
    return StreamWriter(transport, protocol, reader, loop), reader


def _signal(process: Popen[bytes], number: signal.Signals) -> None:
    """To the whole group. Of one that has ended, some systems say that it is not there, others that it is not ours."""
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, number)
