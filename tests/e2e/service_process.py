"""Runs the `latchkey` program as a user does: as a process, in a given folder and with a given environment.

Processes are forked from a server that has already imported the program; that saves seconds over a new interpreter.
"""

import multiprocessing
import os
import re
import signal
import sys
import sysconfig
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing.process import BaseProcess
from pathlib import Path
from threading import Thread
from typing import Any
from uuid import uuid4

import httpx2

from latchkey.__main__ import main
from latchkey.testing.processes import free_port
from tests.polling import TIMEOUT_S, wait_until_sync

LATCHKEY = Path(sysconfig.get_path("scripts")) / "latchkey"
BASE_SETTINGS = {"LATCHKEY_AUTH_SECRET": "a secret of thirty-two bytes or more", "LATCHKEY_AGENT": "rehearsal"}

Environment = Mapping[str, str]

# Commands import these modules lazily.
_PRELOADED = (
    "__main__",
    "bootstrap.composition",
    "bootstrap.serve",
    "bootstrap.serve_stdio",
    "infrastructure.agents.claude.agent",
    "infrastructure.agents.scripted.agent",
    "infrastructure.database.migrations",
)
_FORK_SERVER = multiprocessing.get_context("forkserver")
_FORK_SERVER.set_forkserver_preload([f"latchkey.{name}" for name in _PRELOADED])


@dataclass(frozen=True)
class CommandResult:
    """The result of a command that has ended."""

    exit_code: int | None
    stdout: str
    stderr: str


@dataclass(frozen=True)
class Replica:
    """A running service: its URL, its process and the file with its output."""

    url: str
    process: BaseProcess
    output: Path

    @property
    def log_text(self) -> str:
        return self.output.read_text()

    def request(self, method: str, path: str, token: str = "", **options: Any) -> httpx2.Response:
        authorization = {"authorization": f"Bearer {token}"} if token else {}
        headers = {**authorization, **options.pop("headers", {})}
        return httpx2.request(method, self.url + path, headers=headers, timeout=TIMEOUT_S, **options)


def run_command(*arguments: str, home: Path, environment: Environment) -> CommandResult:
    """Run a command until it ends. It is killed after `TIMEOUT_S`."""
    out, err = home.parent / f"{uuid4()}.out", home.parent / f"{uuid4()}.err"
    process = _start(arguments, home, environment, out, err)
    process.join(TIMEOUT_S)
    process.kill()
    return CommandResult(process.exitcode, out.read_text(), err.read_text())


@contextmanager
def running_service(
    *arguments: str,
    home: Path,
    environment: Environment,
    ready: str = "Latchkey is at",
    port: int | None = None,
) -> Iterator[Replica]:
    """Run `latchkey serve`, on a free port by default.

    Enters when its output contains `ready`; kills the process on exit.
    """
    port, output = port or free_port(), home.parent / f"{uuid4()}.log"
    process = _start(("serve", "--port", str(port), *arguments), home, environment, output, output)
    try:
        wait_until_sync(lambda: ready in output.read_text() or not process.is_alive())
        assert process.is_alive(), output.read_text()
        yield Replica(f"http://127.0.0.1:{port}", process, output)
    finally:
        process.kill()
        process.join()


def migrate_database(home: Path, environment: Environment) -> None:
    result = run_command("migrate", home=home, environment=environment)
    assert result.exit_code == 0, result.stderr


def issue_token(user_id: str, home: Path, environment: Environment) -> str:
    result = run_command("token", user_id, home=home, environment=environment)
    assert result.exit_code == 0, result.stderr
    return result.stdout.strip()


def match_line(text: str, pattern: str) -> str:
    """The first group of the first match of the pattern. Raises `AssertionError` if no line matches."""
    match = re.search(pattern, text, re.MULTILINE)
    assert match, text
    return match[1]


def _start(arguments: tuple[str, ...], home: Path, environment: Environment, out: Path, err: Path) -> BaseProcess:
    out.touch()
    variables = {"PATH": os.environ["PATH"], **environment}
    process = _FORK_SERVER.Process(target=_run_main, args=(arguments, home, variables, out, err))
    process.start()
    return process


def _run_main(arguments: tuple[str, ...], home: Path, environment: Environment, out: Path, err: Path) -> None:
    """Set up the process as a shell would, then run the program."""
    Thread(target=_exit_with_tests, daemon=True).start()
    os.chdir(home)
    os.umask(0o022)
    os.environ.clear()
    os.environ.update(environment)
    for path, mode, descriptor in ((Path(os.devnull), "rb", 0), (out, "ab", 1), (err, "ab", 2)):
        with path.open(mode) as file:
            os.dup2(file.fileno(), descriptor)
    sys.stdin = os.fdopen(0)
    sys.argv = ["latchkey", *arguments]
    main()


def _exit_with_tests() -> None:
    """Kill this process when the test process ends, even if that was killed."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os.kill(os.getpid(), signal.SIGKILL)
