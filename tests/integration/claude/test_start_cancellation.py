"""A start of the CLI that is cancelled leaves no process."""

import os
from pathlib import Path

from latchkey.infrastructure.agents.claude.process import ClaudeProcess
from tests.contract.database.cancellation import is_cancelled_at
from tests.polling import wait_until


async def is_running(mark: str) -> bool:
    return bool(commands_with(mark))


async def has_ended(mark: str) -> bool:
    """A killed process keeps its command for a moment, and its children cannot be waited for."""
    return not commands_with(mark)


def commands_with(mark: str) -> list[Path]:
    """The processes of this machine whose command contains the mark."""
    commands = []
    for command in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            commands += [command] if mark.encode() in command.read_bytes() else []
        except OSError:  # the process has ended since it was listed
            continue
    return commands


async def test_cancelled_start_leaves_no_process(tmp_path: Path) -> None:
    async def start() -> None:
        await ClaudeProcess.start(["/bin/sh", "-c", "sleep 600; exit", str(tmp_path)], dict(os.environ), tmp_path)

    assert await is_cancelled_at(1, start())
    await wait_until(lambda: has_ended(str(tmp_path)))


async def test_started_process_runs_until_it_is_killed(tmp_path: Path) -> None:
    command = ["/bin/sh", "-c", "sleep 600; exit", str(tmp_path)]
    process = await ClaudeProcess.start(command, dict(os.environ), tmp_path)
    try:
        # A process that has just been started may have no command yet.
        await wait_until(lambda: is_running(str(tmp_path)))
    finally:
        await process.kill()

    await wait_until(lambda: has_ended(str(tmp_path)))
    assert await process.read() == b""
