"""Runs what a measurement needs: a database, a model, the baseline (`limit`) and Latchkey, each as a process.

The processes do not inherit the environment of the caller, and everything is removed at the end.
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
from latchkey.testing.postgresql import PostgreSQL, postgresql
from latchkey.testing.processes import free_port

DatabaseKind = Literal["postgresql", "sqlite"]

ROOT = Path(__file__).parents[1]
LATCHKEY = Path(sysconfig.get_path("scripts")) / "latchkey"
SECRET = "bench-secret-bench-secret-bench-secret"
USERS_PER_KIND = 64
"""Users of each kind: readers (w), writers (a), and users with a conversation (h)."""
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
"""All features are on; the limits per user are higher than the load."""

_UVICORN_OPTIONS = ["--log-level", "warning", "--no-access-log", "--backlog", "4096", "--timeout-keep-alive", "75"]
_POSTGRESQL_SETTINGS = ("max_wal_size = '4GB'", "checkpoint_timeout = '30min'", "jit = off", "random_page_cost = 1.1")


@dataclass(frozen=True)
class Server:
    """A running server with its own database."""

    target: Target
    pid: int
    database: str

    def seed(self, what: str, **values: object) -> None:
        """Run one of the seed scripts of the target in its database."""
        kind = "sqlite" if self.database.startswith("sqlite") else "postgresql"
        sql = Template(self.target.spec["seed"][kind][what].strip())({**values})
        if kind == "sqlite":
            with sqlite3.connect(_path(self.database), timeout=60) as connection:
                connection.executescript(sql)
            connection.close()
        else:
            uvloop.run(_execute(self.database, sql))

    def seed_users(self) -> None:
        """Create readers with 50 tasks and a conversation of 50 messages, and users without data."""
        for number in range(USERS_PER_KIND):
            self.seed("user", user=f"w{number}", rows=ROWS)
            self.seed("user", user=f"a{number}", rows=0)
            self.seed("user", user=f"h{number}", rows=0)
        self.seed("finish")


@dataclass(frozen=True)
class BenchEnvironment:
    """A folder, a model, and a PostgreSQL server (None for SQLite)."""

    folder: Path
    model_url: str
    postgresql: PostgreSQL | None

    @contextmanager
    def limit(self) -> Iterator[Server]:
        with self.database("limit") as url:
            port = free_port()
            settings = {"DATABASE_URL": url, "AUTH_SECRET": SECRET, "OPENAI_BASE_URL": self.model_url}
            command = [sys.executable, "-m", "uvicorn", "bench.limit:app", "--port", str(port), *_UVICORN_OPTIONS]
            with run_process(command, port, ROOT, self.folder / "limit.log", settings) as pid:
                yield Server(Target(ROOT / "bench/limit.toml", f"http://127.0.0.1:{port}"), pid, url)

    @contextmanager
    def latchkey(self, *, workers: int = 1, **variables: str) -> Iterator[Server]:
        """Start Latchkey as a user does, with additional settings."""
        with self.database("latchkey") as url:
            port = free_port()
            settings = {"LATCHKEY_DATABASE_URL": url, "OPENAI_BASE_URL": self.model_url, **SETTINGS, **variables}
            command = [str(LATCHKEY), "serve", "--migrate", "--port", str(port), "--workers", str(workers)]
            with run_process(command, port, self.folder, self.folder / "latchkey.log", settings) as pid:
                yield Server(Target(ROOT / "bench/latchkey.toml", f"http://127.0.0.1:{port}"), pid, url)

    @contextmanager
    def database(self, name: Literal["latchkey", "limit"]) -> Iterator[str]:
        """The URL of an empty database, for the driver of that server."""
        unique = f"bench_{name}_{uuid4().hex[:8]}"
        if self.postgresql is None:
            driver = "+aiosqlite" if name == "latchkey" else ""
            yield f"sqlite{driver}:///{self.folder / unique}.db"
            return
        yield self.postgresql.create_database(unique)
        self.postgresql.drop_database(unique)


@contextmanager
def bench_environment(kind: DatabaseKind) -> Iterator[BenchEnvironment]:
    """Start everything, and end it on exit."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("ended"))
    with tempfile.TemporaryDirectory(prefix="latchkey-bench-") as path:
        folder = Path(path)
        with run_model(folder) as model_url:
            if kind == "sqlite":
                yield BenchEnvironment(folder, model_url, None)
                return
            with postgresql(folder / "postgresql.log") as server:
                for setting in _POSTGRESQL_SETTINGS:
                    server.execute(f"ALTER SYSTEM SET {setting}")
                server.execute("SELECT pg_reload_conf()")
                yield BenchEnvironment(folder, model_url, server)


@contextmanager
def run_model(folder: Path) -> Iterator[str]:
    """Run the scripted model. Returns its base URL."""
    port = free_port()
    with run_process([sys.executable, "-m", "bench.model", str(port)], port, ROOT, folder / "model.log", {}):
        yield f"http://127.0.0.1:{port}/v1"


@contextmanager
def run_process(command: list[str], port: int, folder: Path, log: Path, settings: dict[str, str]) -> Iterator[int]:
    """Run a process. Enters when it listens on the port; terminates it on exit."""
    environment = {"PATH": os.environ["PATH"], **settings}
    with log.open("ab") as log_file:
        process = subprocess.Popen(command, cwd=folder, env=environment, stdout=log_file, stderr=log_file)  # noqa: S603 - ours
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
