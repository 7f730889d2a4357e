"""Programs that tests start, tied to the process that started them."""

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

PATIENCE_S = 60.0

LEASH = """
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
"""Waits for the end of its standard input, which comes when the tests end, even by kill -9; then ends the program."""


class Account(NamedTuple):
    """Whom to run a program as; all None is whoever runs the tests."""

    user: str | None = None
    group: int | None = None
    extra_groups: list[int] | None = None


def humble_account() -> Account:
    """For programs that refuse to be run by root: `nobody` in root's place."""
    return Account("nobody", pwd.getpwnam("nobody").pw_gid, []) if os.geteuid() == 0 else Account()


@contextmanager
def humble_folder() -> Iterator[Path]:
    """An empty folder of the humble account's, with a short path: a socket's has 107 bytes at most."""
    folder = Path(tempfile.mkdtemp(prefix="latchkey-", dir="/tmp"))
    try:
        if user := humble_account().user:
            shutil.chown(folder, user)
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def free_port() -> int:
    """A port of loopback that nobody listened on just now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def tethered(
    command: list[str],
    folder: Path,
    log: Path,
    *,
    ready: str,
    signal: str,
    account: Account | None = None,
) -> Iterator[None]:
    """The program, from the line of output that has `ready` in it until `signal`. Its folder goes with it.

    It is run by the humble account unless told otherwise, and sees nothing of our environment but the PATH.
    """
    account = account or humble_account()
    leash = subprocess.Popen(
        ["/bin/sh", "-c", LEASH, "leash", signal, str(folder), *command],
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
    assert leash.stdin
    assert leash.stdout
    started: Future[None] = Future()
    reader = Thread(target=_keep, args=(leash.stdout, log, ready, started), daemon=True)
    reader.start()
    with leash:
        try:
            started.result(PATIENCE_S)
            yield
        finally:
            leash.stdin.close()
            reader.join(PATIENCE_S)


def _keep(output: Iterable[str], log: Path, ready: str, started: Future[None]) -> None:
    """Write what the program says to the log; tell when it is ready, or has ended without being so."""
    with log.open("a") as kept:
        for line in output:
            kept.write(line)
            kept.flush()
            if ready in line and not started.done():
                started.set_result(None)
    if not started.done():
        started.set_exception(RuntimeError(f"It never said {ready!r}, but:\n{log.read_text()}"))
