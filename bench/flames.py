"""Draws a flame graph of each operation: `make flames`, or `python -m bench.flames`.

py-spy samples the stacks of Latchkey under the load of 16 connections. It pauses the process for each sample, so that
every stack is complete. It needs the right to trace another process: on Linux root, or ptrace_scope 0.
"""

import re
import subprocess
import sysconfig
from pathlib import Path
from typing import Any

import click
import uvloop

from bench.environment import ROOT, Server, bench_environment
from bench.flame_graph import build_tree, draw
from bench.measurement import Load, prime
from bench.tables import GOALS

FLAME_GRAPHS = ROOT / "docs/pictures"
PY_SPY = Path(sysconfig.get_path("scripts")) / "py-spy"
CONNECTIONS = 16
RATE = 200

_COMMON_PREFIX = "Runner.run (asyncio/runners.py)"
"""All stacks start with the same frames up to this one: the start of the event loop."""
_IDLE = "_worker (concurrent/futures/thread.py)"
"""An idle worker thread, which py-spy reports as running."""


@click.command()
@click.option("--ops", default=",".join(GOALS), help="operations, separated by commas; default: all")
@click.option("--seconds", default=8, show_default=True, help="duration per operation")
@click.option("--folder", default=FLAME_GRAPHS, type=click.Path(path_type=Path), help="output folder")
def main(ops: str, seconds: int, folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    with bench_environment("postgresql") as on, on.latchkey() as server:
        server.seed_users()
        for name in ops.split(","):
            uvloop.run(prime(server.target.operations[name], CONNECTIONS))
            root = build_tree(_sample_stacks(server, name, seconds, on.folder / name))
            image = folder / f"{name}.svg"
            image.write_text(draw(root, f"{name}: {root.samples} looks at {CONNECTIONS} connections, PostgreSQL"))
            click.echo(f"{image}: {image.stat().st_size // 1024} KiB")


def _sample_stacks(server: Server, name: str, seconds: int, file: Path) -> list[str]:
    """The sampled stacks, each with its number of samples."""
    command = [str(PY_SPY), "record", "--pid", str(server.pid), "--format", "raw", "--output", str(file)]
    options = ["--duration", str(seconds), "--rate", str(RATE), "--function"]
    pipes: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
    with subprocess.Popen([*command, *options], **pipes) as sampling:  # noqa: S603 - our own command
        result = uvloop.run(Load(server.target.operations[name]).measure(CONNECTIONS, seconds + 1, server.pid))
        output = sampling.communicate()[0]
    if sampling.returncode or result.errors:
        raise click.ClickException(f"{name}: {output}{result.errors}")
    stacks = [_shorten(line) for line in file.read_text().splitlines()]
    return [stack for stack in stacks if not stack.rpartition(" ")[0].endswith(_IDLE)]


def _shorten(line: str) -> str:
    """Remove line numbers and the common start of the stack."""
    line = re.sub(r":\d+\)", ")", line)
    _, prefix, rest = line.partition(_COMMON_PREFIX)
    return f"event loop{rest}" if prefix else line if line.strip("0123456789 ") else f"outside Python{line}"


if __name__ == "__main__":
    main()
