"""No process and no file is left, however a turn ends."""

import asyncio
import os
import signal
import sys
from asyncio import Event
from asyncio.subprocess import DEVNULL
from pathlib import Path

import pytest

from latchkey.domain.agent import TextDelta
from latchkey.infrastructure.agents.claude.workspace import WorkspaceRoot, remove_stale
from tests.fakes.model_script import Step, calls, fails, says
from tests.integration.claude.claude_harness import (
    ROOT,
    ClaudeHarness,
    claude_harness,
    fake_cli,
    processes_in,
    wait_until_true,
)

STUBBORN = """
import os, signal, subprocess, sys, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
subprocess.Popen(["/bin/sleep", "1000"])
open("../ready", "w").close()
time.sleep(1000)
"""


@pytest.mark.parametrize(
    "script",
    [
        pytest.param([calls(("note", '{"text":"milk"}')), says("Noted.")], id="an answer"),
        pytest.param([says("Hal").cut()], id="a broken answer"),
        pytest.param([fails(403)], id="an error status"),
        pytest.param([calls(("crash", "{}"))], id="a lost tool connection"),
    ],
)
async def test_finished_turn_leaves_no_process_and_no_files(harness: ClaudeHarness, script: list[Step]) -> None:
    await harness.run_turn(*script)

    assert harness.processes == []
    assert harness.workspaces == []


async def test_closed_turn_leaves_no_process_and_no_files(harness: ClaudeHarness) -> None:
    harness.model.script.append(says("One, ", "two").held(Event()))
    turn = harness.agent.run(harness.agent_run())
    assert await anext(turn) == TextDelta("One, ")
    assert len(harness.processes) == len(harness.workspaces) == 1

    await turn.aclose()

    assert harness.processes == []
    assert harness.workspaces == []


@pytest.mark.parametrize("moment", ["home", "process", "question"])
async def test_cancelled_turn_leaves_no_process_and_no_files(harness: ClaudeHarness, moment: str) -> None:
    """At three early moments: its workspace exists, its process runs, the model has its request."""
    conditions = {
        "home": lambda: harness.roots,
        "process": lambda: harness.processes,
        "question": lambda: harness.model.requests,
    }
    consumer = asyncio.ensure_future(harness.run_turn(says("One, ").held(Event())))
    await wait_until_true(conditions[moment])

    consumer.cancel()
    with pytest.raises(asyncio.CancelledError):
        await consumer

    await wait_until_true(lambda: not harness.processes)
    assert harness.workspaces == []


async def test_aclose_of_the_agent_cancels_running_turns(harness: ClaudeHarness) -> None:
    harness.model.script += [says("One, ").held(Event()), says("One, ").held(Event())]
    turns = [asyncio.ensure_future(harness.run_turn()) for _ in range(2)]
    await wait_until_true(lambda: len(harness.model.requests) == 2)

    await harness.agent.aclose()

    assert harness.processes == []
    assert harness.roots == []
    await asyncio.wait(turns)
    assert all(turn.cancelled() for turn in turns)


async def test_process_that_ignores_sigterm_is_killed_with_its_children(folder: Path, tmp_path: Path) -> None:
    async with claude_harness(folder, path=fake_cli(tmp_path, STUBBORN)) as harness:
        turn = asyncio.ensure_future(harness.run_turn())
        await wait_until_true(lambda: list(folder.rglob("ready")))
        assert len(harness.processes) == 2

        turn.cancel()
        await asyncio.wait({turn})

        await wait_until_true(lambda: not harness.processes)
        assert harness.workspaces == []


async def test_remove_stale_removes_workspaces_of_killed_services_only(harness: ClaudeHarness) -> None:
    await harness.run_turn(says("Hello."))
    (own_root,) = harness.roots
    harness.model.script.append(says("One, ").held(Event()))
    service = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "tests.integration.claude.turn_process"),
        *(str(harness.folder), harness.model.base_url, harness.endpoint.url),
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": f"{ROOT}/src"},
        stdout=DEVNULL,
        stderr=DEVNULL,
    )
    await wait_until_true(lambda: len(harness.model.requests) == 2)
    remove_stale(harness.folder)
    assert len(harness.roots) == 2
    assert harness.processes

    service.kill()
    await service.wait()
    (stale_root,) = set(harness.roots) - {own_root}
    assert list(stale_root.rglob("mcp.json"))
    remove_stale(harness.folder)

    assert harness.roots == [own_root]
    await wait_until_true(lambda: not processes_in(stale_root))
    assert (await harness.run_turn(says("Still here."))).text == "Still here."


def test_remove_stale_leaves_foreign_files_alone(folder: Path, tmp_path: Path) -> None:
    precious = tmp_path / "precious"
    precious.mkdir(mode=0o700)
    (folder / "latchkey-claude-link").symlink_to(precious)
    (folder / "latchkey-claude-file").write_text("")
    (folder / "latchkey-claude-open").mkdir(mode=0o755)
    (folder / "other").mkdir(mode=0o700)
    remove_stale(folder)

    assert precious.is_dir()
    assert len(list(folder.iterdir())) == 4


def test_workspace_root_is_locked_until_it_is_closed(folder: Path) -> None:
    root = WorkspaceRoot(folder)
    with root.workspace() as workspace:
        remove_stale(folder)
        assert workspace.work.is_dir()
    root.close()

    assert list(folder.iterdir()) == []


async def test_process_receives_sigterm_before_sigkill(folder: Path, tmp_path: Path) -> None:
    received = tmp_path / "received"
    program = f"""
import os, signal, time
def handle(*_):
    open({str(received)!r}, "w").close()
    os._exit(0)
signal.signal({int(signal.SIGTERM)}, handle)
open("../ready", "w").close()
time.sleep(1000)
"""
    async with claude_harness(folder, path=fake_cli(tmp_path, program)) as harness:
        turn = asyncio.ensure_future(harness.run_turn())
        await wait_until_true(lambda: list(folder.rglob("ready")))
        turn.cancel()
        await asyncio.wait({turn})

    assert received.exists()
