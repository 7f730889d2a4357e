"""The command line: options, output and exit codes. `Commands` does the work."""

import re
import sys
import traceback
from collections.abc import Iterable
from datetime import timedelta
from pathlib import Path
from typing import Any, Protocol

import click
from msgspec import Struct

_EXIT_FAILURE, _EXIT_BUG = 1, 70
_UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days"}


class Finding(Struct, frozen=True):
    """The result of one check of `doctor`. A needed check that is not ok means that the service cannot serve."""

    name: str
    text: str
    ok: bool = True
    needed: bool = True


class IssuedToken(Struct, frozen=True):
    """A JWT, and the name of the key that signed it."""

    text: str
    key: str


class Commands(Protocol):
    def use_app(self, app: str) -> None: ...
    def new(self, name: str) -> Iterable[str]: ...
    def serve(self, host: str, port: int, workers: int, *, dev: bool, migrate: bool) -> None: ...
    def migrate(self) -> Iterable[str]: ...
    def revision(self, message: str, *, empty: bool) -> Path | None: ...
    def token(self, user: str, ttl: timedelta) -> IssuedToken: ...
    def mcp(self) -> None: ...
    def doctor(self) -> Iterable[Finding]: ...


class _Duration(click.ParamType[timedelta]):
    name = "duration"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> timedelta:
        text = str(value)
        if not (text[:-1].isdecimal() and text[-1] in _UNITS and int(text[:-1])):
            self.fail(
                f"{text!r} is not a duration: write a number followed by s, m, h or d, for example 1h.", param, ctx
            )
        return timedelta(**{_UNITS[text[-1]]: int(text[:-1])})


def run(commands: Commands, expected_errors: tuple[type[Exception], ...]) -> None:
    """Run the command line and exit: 0 for success, 1 for an expected error, 2 for wrong usage, 70 for a bug."""
    try:
        latchkey(prog_name="latchkey", obj=commands)
    except expected_errors as error:
        click.echo(f"latchkey: {error}", err=True)
        sys.exit(_EXIT_FAILURE)
    except Exception:  # noqa: BLE001  # any other exception is a bug: it is printed and has its own exit code
        traceback.print_exc()
        sys.exit(_EXIT_BUG)


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="latchkey-server")
def latchkey() -> None:
    """Latchkey, the backend of an AI assistant: conversations, turns, to-do tasks and artifacts over HTTP and MCP."""


def _use_app(context: click.Context, _: click.Parameter, app: str | None) -> None:
    if app is not None:
        commands: Commands = context.obj
        commands.use_app(app)


_app_option = click.option(
    "--app",
    metavar="MODULE:NAME",
    callback=_use_app,
    expose_value=False,
    help="Serve this app, instead of the one in LATCHKEY_APP.",
)


@latchkey.command()
@click.argument("name")
@click.pass_obj
def new(commands: Commands, name: str) -> None:
    """Make a folder NAME with a small app: an entity, tools, an assistant, a migration and tests."""
    for line in commands.new(name):
        click.echo(line)


@latchkey.command()
@click.option("--host", default="127.0.0.1", show_default=True)
@click.option("--port", default=8000, show_default=True, type=click.IntRange(1, 65535))
@click.option("--workers", default=1, show_default=True, type=click.IntRange(1, 64))
@click.option("--dev", is_flag=True, help="Use SQLite, a local signing key and the rehearsal agent; loopback only.")
@_app_option
@click.option("--migrate", is_flag=True, help="Upgrade the database schema to head first.")
@click.pass_obj
def serve(commands: Commands, host: str, port: int, workers: int, *, dev: bool, migrate: bool) -> None:
    """Serve HTTP and MCP."""
    commands.serve(host, port, workers, dev=dev, migrate=migrate)


@latchkey.command()
@_app_option
@click.pass_obj
def migrate(commands: Commands) -> None:
    """Upgrade the database schema to head, and repair the runtime role, its privileges and the policies.

    Safe to run concurrently: one process migrates, the others wait. Prints what it did.
    """
    for line in commands.migrate():
        click.echo(line)


@latchkey.command()
@_app_option
@click.option("-m", "--message", required=True, help="What the revision does; its file is named after it.")
@click.option("--empty", is_flag=True, help="Compare nothing: write a revision without operations, to be filled in.")
@click.pass_obj
def revision(commands: Commands, message: str, *, empty: bool) -> None:
    """Write the next revision of the app: the difference between its tables and the database."""
    if not re.search(r"\w", message):
        raise click.UsageError("-m must contain a letter or a digit.")
    path = commands.revision(message, empty=empty)
    click.echo(f"wrote {path}" if path else "nothing to do: the app's tables are those of the database")


@latchkey.command()
@click.argument("user")
@click.option(
    "--ttl",
    default="1h",
    show_default=True,
    type=_Duration(),
    help="How long the token is valid, for example 30m, 1h or 7d.",
)
@click.pass_obj
def token(commands: Commands, user: str, ttl: timedelta) -> None:
    """Print a JWT for USER. Requires the shared secret or the local signing key, and makes neither."""
    issued = commands.token(user, ttl)
    click.echo(f"latchkey: signed with {issued.key}", err=True)
    click.echo(issued.text)


@latchkey.command()
@_app_option
@click.pass_obj
def mcp(commands: Commands) -> None:
    """Serve MCP over stdio with the context token in LATCHKEY_CONTEXT_TOKEN."""
    commands.mcp()


@latchkey.command()
@_app_option
@click.pass_obj
def doctor(commands: Commands) -> None:
    """Check the configuration and its dependencies: what is configured, reachable and missing."""
    findings = list(commands.doctor())
    for finding in findings:
        mark = "ok  " if finding.ok else "FAIL" if finding.needed else "note"
        click.echo(f"{mark} {finding.name}: {finding.text}")
    if any(finding.needed and not finding.ok for finding in findings):
        sys.exit(_EXIT_FAILURE)
