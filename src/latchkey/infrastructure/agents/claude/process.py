"""The running process of the Claude CLI: its start, its input and output, and its end."""

import asyncio
import json
import os
import signal
from asyncio import ReadTransport, StreamReader, StreamReaderProtocol, StreamWriter
from contextlib import suppress
from pathlib import Path
from subprocess import DEVNULL, PIPE, Popen
from typing import Any

from latchkey.domain.errors import ModelBadResponse, ModelUnavailable

MAX_LINE_BYTES = 8 * 1024 * 1024
MAX_OUTPUT_BYTES = 256 * 1024 * 1024
"""The CLI writes some hundred bytes for each word of the model, and a file may have a MiB of text."""
TERMINATION_TIMEOUT_S = 2.0
NICE = 10
"""A lower priority than our own: the start of the CLI needs much CPU, and must not delay requests."""


class ClaudeProcess:
    """A process in a group of its own. The code that starts it must end it."""

    def __init__(
        self, process: Popen[bytes], stdin: StreamWriter, stdout: StreamReader, stdout_transport: ReadTransport
    ) -> None:
        self._process = process
        self._stdin = stdin
        self._stdout = stdout
        self._stdout_transport = stdout_transport
        self._output_bytes = 0

    @classmethod
    async def start(cls, command: list[str], environment: dict[str, str], folder: Path) -> "ClaudeProcess":
        """Raises `ModelUnavailable` if the program cannot be started. Leaves no process if it is cancelled.

        Uses `Popen` and not `asyncio.create_subprocess_exec`: on uvloop, that forks this process with all its memory
        and blocks the event loop meanwhile. `Popen` uses `vfork`.
        """
        try:
            # stderr is discarded: it may quote anything.
            process = Popen(  # noqa: ASYNC220, S603 - does not block for long; the operator has chosen the program
                command, stdin=PIPE, stdout=PIPE, stderr=DEVNULL, cwd=folder, env=environment, start_new_session=True
            )
        except OSError as error:
            raise ModelUnavailable("The Claude CLI cannot be started: check LATCHKEY_CLAUDE_CLI.") from error
        with suppress(ProcessLookupError):
            os.setpriority(os.PRIO_PROCESS, process.pid, NICE)
        connecting = asyncio.ensure_future(_connect_pipes(process))
        try:
            return cls(process, *await asyncio.shield(connecting))
        except asyncio.CancelledError:
            await cls(process, *await connecting).kill()
            raise

    async def write(self, lines: list[dict[str, Any]]) -> None:
        """Write one line of JSON each. A process that has ended is noticed when its output is read."""
        with suppress(ConnectionError):
            self._stdin.writelines(json.dumps(line).encode() + b"\n" for line in lines)
            await self._stdin.drain()

    async def read(self) -> bytes:
        """The next line of the output, empty at its end. Raises `ModelBadResponse` if the output is too long."""
        try:
            line = await self._stdout.readline()
        except ValueError as error:
            raise ModelBadResponse(f"The Claude CLI wrote a line of more than {MAX_LINE_BYTES} bytes.") from error
        self._output_bytes += len(line)
        if self._output_bytes > MAX_OUTPUT_BYTES:
            raise ModelBadResponse(f"The Claude CLI wrote more than {MAX_OUTPUT_BYTES} bytes.")
        return line

    async def terminate(self) -> None:
        """Send SIGTERM to the whole group, and SIGKILL after `TERMINATION_TIMEOUT_S`."""
        _send_signal(self._process, signal.SIGTERM)
        try:
            async with asyncio.timeout(TERMINATION_TIMEOUT_S):
                await asyncio.to_thread(self._process.wait)
        except TimeoutError:
            pass
        finally:
            await self.kill()

    async def kill(self) -> None:
        """Send SIGKILL to the whole group, wait for the process and close its pipes.

        This is the quickest end if the output is complete.
        """
        _send_signal(self._process, signal.SIGKILL)
        await asyncio.to_thread(self._process.wait)
        if not self._stdin.is_closing():
            self._stdin.transport.abort()  # `close` would wait until all input is written
        self._stdout_transport.close()
        with suppress(ConnectionError):
            await self._stdin.wait_closed()
        await self._stdout.read()  # returns once the transport is closed


async def _connect_pipes(process: Popen[bytes]) -> tuple[StreamWriter, StreamReader, ReadTransport]:
    """The process's pipes as streams of the running event loop.

    The writer's protocol has a reader as well, because asyncio has no public protocol for writing alone.
    """
    loop = asyncio.get_running_loop()
    stdout, unused = StreamReader(MAX_LINE_BYTES, loop), StreamReader(loop=loop)
    stdout_transport, _ = await loop.connect_read_pipe(lambda: StreamReaderProtocol(stdout, loop=loop), process.stdout)
    stdin_transport, protocol = await loop.connect_write_pipe(
        lambda: StreamReaderProtocol(unused, loop=loop), process.stdin
    )
    return StreamWriter(stdin_transport, protocol, unused, loop), stdout, stdout_transport


def _send_signal(process: Popen[bytes], number: signal.Signals) -> None:
    """Signal the whole group. For a group that has ended, systems report different errors."""
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, number)
