"""Starts programs for tests and ends them with the tests, even if the tests are killed."""

import os
import pwd
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Iterable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from pathlib import Path
from threading import Thread
from typing import NamedTuple

TIMEOUT_S = 60.0

_SUPERVISOR = """
exec 3>&1 >/dev/null
signal=$1 folder=$2; shift 2
"$@" >&3 2>&3 3>&- &
exec 3>&-
trap '' HUP INT TERM
read -r _
kill -s "$signal" $!
wait $!
rm -rf "$folder"
"""
"""Ends the program when its own standard input closes. That happens when the tests end, even by `kill -9`."""


class Account(NamedTuple):
    """The account that runs a program. All fields None: the account of the tests."""

    user: str | None = None
    group: int | None = None
    extra_groups: list[int] | None = None


def unprivileged_account() -> Account:
    """`nobody` if the tests run as root, for programs that refuse to run as root."""
    return Account("nobody", pwd.getpwnam("nobody").pw_gid, []) if os.geteuid() == 0 else Account()


@contextmanager
def unprivileged_folder() -> Iterator[Path]:
    """An empty folder that the unprivileged account owns. Its path is short: a socket path has at most 107 bytes."""
    folder = Path(tempfile.mkdtemp(prefix="latchkey-", dir="/tmp"))
    try:
        if user := unprivileged_account().user:
            shutil.chown(folder, user)
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def free_port() -> int:
    """A loopback port that no process listens on at this moment."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def supervised(
    command: list[str],
    folder: Path,
    log: Path,
    *,
    ready: str,
    signal: str,
    account: Account | None = None,
) -> Iterator[None]:
    """Run a program: enter when a line of its output contains `ready`, send `signal` on exit, delete its folder.

    The unprivileged account runs it unless another is passed. Its environment has only the PATH.
    """
    account = account or unprivileged_account()
    supervisor = subprocess.Popen(
        ["/bin/sh", "-c", _SUPERVISOR, "leash", signal, str(folder), *command],
        cwd=folder,
        env={"PATH": os.environ["PATH"], "LC_ALL": "C"},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
        user=account.user,
        group=account.group,
        extra_groups=account.extra_groups,
    )
    assert supervisor.stdin
    assert supervisor.stdout
    started: Future[None] = Future()
    reader = Thread(target=_copy_output, args=(supervisor.stdout, log, ready, started), daemon=True)
    reader.start()
    with supervisor:
        try:
            started.result(TIMEOUT_S)
            yield
        finally:
            supervisor.stdin.close()
            reader.join(TIMEOUT_S)


def _copy_output(output: Iterable[str], log: Path, ready: str, started: Future[None]) -> None:
    """Copy the output of the program to the log. Resolve `started` when it is ready, or fail it if the program ends."""
    with log.open("a") as log_file:
        for line in output:
            log_file.write(line)
            log_file.flush()
            if ready in line and not started.done():
                started.set_result(None)
    if not started.done():
        started.set_exception(RuntimeError(f"The program ended without the output {ready!r}:\n{log.read_text()}"))
