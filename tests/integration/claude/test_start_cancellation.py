"""A start that is given up half-way leaves no process: nobody holds it yet who could end it."""

import os
from pathlib import Path

from latchkey.infrastructure.agents.claude.process import ClaudeProcess
from tests.contract.database.interruption import is_cancelled_at
from tests.polling import wait_until


async def runs(mark: str) -> bool:
    return bool(running(mark))


async def ended(mark: str) -> bool:
    """What is killed has a command until the kernel has got to it, and its children are not ours to wait for."""
    return not running(mark)


def running(mark: str) -> list[Path]:
    """The processes of this machine whose command has the mark."""
    found = []
    for command in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            found += [command] if mark.encode() in command.read_bytes() else []
        except OSError:  # it has ended since it was listed
            continue
    return found


async def test_cancelled_start_leaves_no_process(tmp_path: Path) -> None:
    async def start() -> None:
        await ClaudeProcess.start(["/bin/sh", "-c", "sleep 600; exit", str(tmp_path)], dict(os.environ), tmp_path)

    assert await is_cancelled_at(1, start())
    await wait_until(lambda: ended(str(tmp_path)))


async def test_started_process_runs_until_it_is_killed(tmp_path: Path) -> None:
    command = ["/bin/sh", "-c", "sleep 600; exit", str(tmp_path)]
    process = await ClaudeProcess.start(command, dict(os.environ), tmp_path)
    try:
        # A program that has just been started has no command yet for whoever looks at once.
        await wait_until(lambda: runs(str(tmp_path)))
    finally:
        await process.kill()

    await wait_until(lambda: ended(str(tmp_path)))
    assert await process.read() == b""
