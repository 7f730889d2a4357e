"""The program as its users start it: from a folder of theirs, with an environment of theirs, as a process of its own.

Most are forked from a process that has imported the program already, which costs seconds less than a new interpreter.
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
from tests.patience import PATIENCE_S, eventually_sync
from tests.tether import free_port

LATCHKEY = Path(sysconfig.get_path("scripts")) / "latchkey"
SIGNED = {"LATCHKEY_AUTH_SECRET": "a secret of thirty-two bytes or more", "LATCHKEY_AGENT": "rehearsal"}

Environment = Mapping[str, str]

# What a command imports when it is asked for.
_PARTS = (
    "__main__",
    "bootstrap.composition",
    "bootstrap.serve",
    "bootstrap.serve_stdio",
    "infrastructure.agents.claude.agent",
    "infrastructure.agents.scripted.agent",
    "infrastructure.database.migrations",
)
_FORKS = multiprocessing.get_context("forkserver")
_FORKS.set_forkserver_preload([f"latchkey.{name}" for name in _PARTS])


@dataclass(frozen=True)
class Done:
    """A command that has ended."""

    code: int | None
    stdout: str
    stderr: str


@dataclass(frozen=True)
class Replica:
    """A running service: where it is, the process that it is, and what it says."""

    url: str
    process: BaseProcess
    output: Path

    @property
    def said(self) -> str:
        return self.output.read_text()

    def ask(self, method: str, path: str, token: str = "", **given: Any) -> httpx2.Response:
        authorization = {"authorization": f"Bearer {token}"} if token else {}
        headers = {**authorization, **given.pop("headers", {})}
        return httpx2.request(method, self.url + path, headers=headers, timeout=PATIENCE_S, **given)


def run(*arguments: str, home: Path, environment: Environment) -> Done:
    """A command, from its start to its end."""
    out, err = home.parent / f"{uuid4()}.out", home.parent / f"{uuid4()}.err"
    process = _started(arguments, home, environment, out, err)
    process.join(PATIENCE_S)
    process.kill()
    return Done(process.exitcode, out.read_text(), err.read_text())


@contextmanager
def served(*arguments: str, home: Path, environment: Environment, ready: str = "Latchkey is at") -> Iterator[Replica]:
    """A replica on a port of its own, once it has said that it is ready. What is left of it afterwards is killed."""
    port, output = free_port(), home.parent / f"{uuid4()}.log"
    process = _started(("serve", "--port", str(port), *arguments), home, environment, output, output)
    try:
        eventually_sync(lambda: ready in output.read_text() or not process.is_alive())
        assert process.is_alive(), output.read_text()
        yield Replica(f"http://127.0.0.1:{port}", process, output)
    finally:
        process.kill()
        process.join()


def migrated(home: Path, environment: Environment) -> None:
    done = run("migrate", home=home, environment=environment)
    assert done.code == 0, done.stderr


def token_for(user_id: str, home: Path, environment: Environment) -> str:
    done = run("token", user_id, home=home, environment=environment)
    assert done.code == 0, done.stderr
    return done.stdout.strip()


def line(text: str, pattern: str) -> str:
    """What the group of the pattern matches in some line."""
    found = re.search(pattern, text, re.MULTILINE)
    assert found, text
    return found[1]


def _started(arguments: tuple[str, ...], home: Path, environment: Environment, out: Path, err: Path) -> BaseProcess:
    out.touch()
    given = {"PATH": os.environ["PATH"], **environment}
    process = _FORKS.Process(target=_perform, args=(arguments, home, given, out, err))
    process.start()
    return process


def _perform(arguments: tuple[str, ...], home: Path, environment: Environment, out: Path, err: Path) -> None:
    """What a shell does, and then what the installed program does."""
    Thread(target=_end_with_the_tests, daemon=True).start()
    os.chdir(home)
    os.environ.clear()
    os.environ.update(environment)
    for path, mode, descriptor in ((Path(os.devnull), "rb", 0), (out, "ab", 1), (err, "ab", 2)):
        with path.open(mode) as file:
            os.dup2(file.fileno(), descriptor)
    sys.stdin = os.fdopen(0)
    sys.argv = ["latchkey", *arguments]
    main()


def _end_with_the_tests() -> None:
    """Also if they are killed."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os.kill(os.getpid(), signal.SIGKILL)
