"""The command line. What the commands do is given from outside; here is how they are asked for."""

import sys
import traceback
from collections.abc import Iterable
from datetime import timedelta
from typing import Any, Protocol

import click
from msgspec import Struct

_DOMAIN_ERROR, _BUG = 1, 70
_UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days"}


class Finding(Struct, frozen=True):
    """What `doctor` found of one thing. One that is not ok and is needed stops the service from serving."""

    name: str
    text: str
    ok: bool = True
    needed: bool = True


class Commands(Protocol):
    def serve(self, host: str, port: int, workers: int, *, dev: bool, migrate: bool) -> None: ...
    def migrate(self) -> None: ...
    def token(self, user: str, ttl: timedelta) -> str: ...
    def mcp(self) -> None: ...
    def doctor(self) -> Iterable[Finding]: ...


class _Duration(click.ParamType[timedelta]):
    name = "duration"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> timedelta:
        text = str(value)
        if not (text[:-1].isdecimal() and text[-1] in _UNITS and int(text[:-1])):
            self.fail(f"{text!r} is not a duration: write a number and s, m, h or d, as in 1h.", param, ctx)
        return timedelta(**{_UNITS[text[-1]]: int(text[:-1])})


def run(commands: Commands, refusals: tuple[type[Exception], ...]) -> None:
    """Run the command line and exit: 0 fine, 1 for one of the refusals, 2 for wrong usage, 70 for a bug."""
    try:
        latchkey(prog_name="latchkey", obj=commands)
    except refusals as refusal:
        click.echo(f"latchkey: {refusal}", err=True)
        sys.exit(_DOMAIN_ERROR)
    except Exception:  # noqa: BLE001  # whatever it is, it is shown, and the exit code says that it is ours
        traceback.print_exc()
        sys.exit(_BUG)


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="latchkey")
def latchkey() -> None:
    """The backend of an AI assistant: conversations, turns, to-do tasks, over HTTP and MCP."""


@latchkey.command()
@click.option("--host", default="127.0.0.1", show_default=True)
@click.option("--port", default=8000, show_default=True, type=click.IntRange(1, 65535))
@click.option("--workers", default=1, show_default=True, type=click.IntRange(1, 64))
@click.option("--dev", is_flag=True, help="SQLite, a local signing key and the rehearsal agent; loopback only.")
@click.option("--migrate", is_flag=True, help="Bring the schema to head first.")
@click.pass_obj
def serve(commands: Commands, host: str, port: int, workers: int, *, dev: bool, migrate: bool) -> None:
    """Serve HTTP and MCP."""
    commands.serve(host, port, workers, dev=dev, migrate=migrate)


@latchkey.command()
@click.pass_obj
def migrate(commands: Commands) -> None:
    """Bring the schema to head. Several at once: one does it, the rest wait."""
    commands.migrate()


@latchkey.command()
@click.argument("user")
@click.option("--ttl", default="1h", show_default=True, type=_Duration(), help="As in 30m, 1h or 7d.")
@click.pass_obj
def token(commands: Commands, user: str, ttl: timedelta) -> None:
    """Print a JWT for USER, where the service signs its own."""
    click.echo(commands.token(user, ttl))


@latchkey.command()
@click.pass_obj
def mcp(commands: Commands) -> None:
    """Serve MCP over stdio for the context token in LATCHKEY_CONTEXT_TOKEN."""
    commands.mcp()


@latchkey.command()
@click.pass_obj
def doctor(commands: Commands) -> None:
    """Say what is configured, reachable and missing."""
    findings = list(commands.doctor())
    for finding in findings:
        mark = "ok  " if finding.ok else "FAIL" if finding.needed else "note"
        click.echo(f"{mark} {finding.name}: {finding.text}")
    if any(finding.needed and not finding.ok for finding in findings):
        sys.exit(_DOMAIN_ERROR)
