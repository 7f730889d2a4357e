"""Where the time of each operation goes, as a picture: `make flames`, or `python -m bench.flames`.

Latchkey under the load of 16 connections, its stacks looked at by py-spy, which stops it for each look so that every
stack is whole. Needs the right to look into another process: on Linux that is root's, or ptrace_scope 0.
"""

import re
import subprocess
import sysconfig
from pathlib import Path

import click
import uvloop

from bench.flame_graph import grown, picture
from bench.measurement import Load, prime
from bench.stage import ROOT, Server, stage
from bench.tables import GOALS

PICTURES = ROOT / "docs/pictures"
PY_SPY = Path(sysconfig.get_path("scripts")) / "py-spy"
CONNECTIONS = 16
RATE = 200

_TRUNK = "Runner.run (asyncio/runners.py)"
"""Down to there all stacks are the same: how a process gets to its event loop."""
_IDLE = "_worker (concurrent/futures/thread.py)"
"""A thread without work, which py-spy takes for one that runs."""


@click.command()
@click.option("--ops", default=",".join(GOALS), help="operations, with commas between; all of the table if not given")
@click.option("--seconds", default=8, show_default=True, help="for each operation")
@click.option("--folder", default=PICTURES, type=click.Path(path_type=Path), help="where the pictures go")
def main(ops: str, seconds: int, folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    with stage("postgresql") as on, on.latchkey() as server:
        server.people()
        for name in ops.split(","):
            uvloop.run(prime(server.target.operations[name], CONNECTIONS))
            root = grown(_looked_at(server, name, seconds, on.folder / name))
            drawn = folder / f"{name}.svg"
            drawn.write_text(picture(root, f"{name}: {root.samples} looks at {CONNECTIONS} connections, PostgreSQL"))
            click.echo(f"{drawn}: {drawn.stat().st_size // 1024} KiB")


def _looked_at(server: Server, name: str, seconds: int, file: Path) -> list[str]:
    """The stacks that were seen, each with how often."""
    command = [str(PY_SPY), "record", "--pid", str(server.pid), "--format", "raw", "--output", str(file)]
    options = ["--duration", str(seconds), "--rate", str(RATE), "--function"]
    with subprocess.Popen([*command, *options], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as looking:  # noqa: S603
        result = uvloop.run(Load(server.target.operations[name]).measure(CONNECTIONS, seconds + 1, server.pid))
        said = looking.communicate()[0]
    if looking.returncode or result.errors:
        raise click.ClickException(f"{name}: {said}{result.errors}")
    stacks = [_short(line) for line in file.read_text().splitlines()]
    return [stack for stack in stacks if not stack.rpartition(" ")[0].endswith(_IDLE)]


def _short(line: str) -> str:
    """Without line numbers, and from the event loop on."""
    line = re.sub(r":\d+\)", ")", line)
    _, trunk, rest = line.partition(_TRUNK)
    return f"event loop{rest}" if trunk else line if line.strip("0123456789 ") else f"outside Python{line}"


if __name__ == "__main__":
    main()
