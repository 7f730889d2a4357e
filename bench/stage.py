"""What a measurement needs around it: a database, a model, the limit and Latchkey, each a process of its own.

Nothing of the caller's environment reaches them, and nothing of them stays behind.
"""

import os
import signal
import sqlite3
import subprocess
import sys
import sysconfig
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from socket import create_connection
from time import monotonic, sleep
from typing import Literal
from uuid import uuid4

import asyncpg
import uvloop

from bench.target import ROWS, Target, Template
from tests.postgresql import PostgreSQL, postgresql
from tests.process_supervision import free_port

Kind = Literal["postgresql", "sqlite"]

ROOT = Path(__file__).parents[1]
LATCHKEY = Path(sysconfig.get_path("scripts")) / "latchkey"
SECRET = "bench-secret-bench-secret-bench-secret"
PEOPLE = 64
"""Of each kind: readers (w), writers (a), and those in the midst of a conversation (h)."""
TIMEOUT_S = 30.0

SETTINGS = {
    "LATCHKEY_AUTH_SECRET": SECRET,
    "LATCHKEY_AGENT": "openai",
    "LATCHKEY_MODEL": "fake",
    "OPENAI_API_KEY": "bench",
    "LATCHKEY_TURNS_PER_USER": "100",
    "LATCHKEY_REQUESTS_PER_MINUTE": "10000000",
    "LATCHKEY_BYTES_PER_USER": "100000000000",
    "LATCHKEY_HISTORY_TURNS": "25",
}
"""All features are on; the limits of a person are beyond what a load generator in 16 persons does."""

_SERVED = ["--log-level", "warning", "--no-access-log", "--backlog", "4096", "--timeout-keep-alive", "75"]
_SETTLED = ("max_wal_size = '4GB'", "checkpoint_timeout = '30min'", "jit = off", "random_page_cost = 1.1")


@dataclass(frozen=True)
class Server:
    """A server that listens, with the database that it has to itself."""

    target: Target
    pid: int
    database: str

    def seed(self, what: str, **values: object) -> None:
        """Run one of the target's scripts in its database."""
        kind = "sqlite" if self.database.startswith("sqlite") else "postgresql"
        sql = Template(self.target.spec["seed"][kind][what].strip())({**values})
        if kind == "sqlite":
            with sqlite3.connect(_path(self.database), timeout=60) as connection:
                connection.executescript(sql)
            connection.close()
        else:
            uvloop.run(_execute(self.database, sql))

    def people(self) -> None:
        """Readers with 50 tasks and a conversation of 50 messages, and others who begin with nothing."""
        for number in range(PEOPLE):
            self.seed("user", user=f"w{number}", rows=ROWS)
            self.seed("user", user=f"a{number}", rows=0)
            self.seed("user", user=f"h{number}", rows=0)
        self.seed("finish")


@dataclass(frozen=True)
class Stage:
    """A folder, a model, and a server for databases or None where a database is a file."""

    folder: Path
    model_url: str
    postgresql: PostgreSQL | None

    @contextmanager
    def limit(self) -> Iterator[Server]:
        with self.database("limit") as url:
            port = free_port()
            given = {"DATABASE_URL": url, "AUTH_SECRET": SECRET, "OPENAI_BASE_URL": self.model_url}
            command = [sys.executable, "-m", "uvicorn", "bench.limit:app", "--port", str(port), *_SERVED]
            with running(command, port, ROOT, self.folder / "limit.log", given) as pid:
                yield Server(Target(ROOT / "bench/limit.toml", f"http://127.0.0.1:{port}"), pid, url)

    @contextmanager
    def latchkey(self, *, workers: int = 1, **variables: str) -> Iterator[Server]:
        """As a user starts it; what the variables say, it is told."""
        with self.database("latchkey") as url:
            port = free_port()
            given = {"LATCHKEY_DATABASE_URL": url, "OPENAI_BASE_URL": self.model_url, **SETTINGS, **variables}
            command = [str(LATCHKEY), "serve", "--migrate", "--port", str(port), "--workers", str(workers)]
            with running(command, port, self.folder, self.folder / "latchkey.log", given) as pid:
                yield Server(Target(ROOT / "bench/ours.toml", f"http://127.0.0.1:{port}"), pid, url)

    @contextmanager
    def database(self, name: Literal["latchkey", "limit"]) -> Iterator[str]:
        """The address of an empty one, as the driver of whoever uses it wants it."""
        unique = f"bench_{name}_{uuid4().hex[:8]}"
        if self.postgresql is None:
            driver = "+aiosqlite" if name == "latchkey" else ""
            yield f"sqlite{driver}:///{self.folder / unique}.db"
            return
        yield self.postgresql.create_database(unique)
        self.postgresql.drop_database(unique)


@contextmanager
def stage(kind: Kind) -> Iterator[Stage]:
    """Ends with everything that stands on it."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("ended"))
    with tempfile.TemporaryDirectory(prefix="latchkey-bench-") as place:
        folder = Path(place)
        with model(folder) as model_url:
            if kind == "sqlite":
                yield Stage(folder, model_url, None)
                return
            with postgresql(folder / "postgresql.log") as server:
                for setting in _SETTLED:
                    server.execute(f"ALTER SYSTEM SET {setting}")
                server.execute("SELECT pg_reload_conf()")
                yield Stage(folder, model_url, server)


@contextmanager
def model(folder: Path) -> Iterator[str]:
    """The base URL of the scripted model."""
    port = free_port()
    with running([sys.executable, "-m", "bench.model", str(port)], port, ROOT, folder / "model.log", {}):
        yield f"http://127.0.0.1:{port}/v1"


@contextmanager
def running(command: list[str], port: int, folder: Path, log: Path, given: dict[str, str]) -> Iterator[int]:
    """The process, from when it listens on the port until it has ended."""
    environment = {"PATH": os.environ["PATH"], **given}
    with log.open("ab") as said:
        process = subprocess.Popen(command, cwd=folder, env=environment, stdout=said, stderr=said)  # noqa: S603 - ours
    try:
        until = monotonic() + TIMEOUT_S
        while not _listens(port):
            if process.poll() is not None or monotonic() > until:
                raise RuntimeError(f"{command[0]} did not start:\n{log.read_text()[-2000:]}")
            sleep(0.05)
        yield process.pid
    finally:
        process.terminate()
        try:
            process.wait(TIMEOUT_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _listens(port: int) -> bool:
    try:
        create_connection(("127.0.0.1", port), 1).close()
    except OSError:
        return False
    return True


def _path(url: str) -> str:
    return url.partition("://")[2].removeprefix("/")


async def _execute(url: str, sql: str) -> None:
    connection = await asyncpg.connect(url)
    try:
        await connection.execute(sql)
    finally:
        await connection.close()
