"""Lists the source files of Latchkey that run for one request: `python -m bench.files`.

The service runs in this process, behind the HTTP server of `latchkey serve`, with the OpenAI agent and a scripted
model. A file counts if the body of one of its functions runs during a warm request. A file that runs only for some of
the requests (a periodic task, a new quota block) does not count.
"""

import asyncio
import sys
import threading
from collections.abc import Awaitable, Callable
from pathlib import Path
from types import CodeType, FrameType
from typing import Any, get_args

import click
import msgspec

from bench.environment import DatabaseKind, bench_environment
from latchkey.infrastructure.database.migrations import upgrade
from latchkey.infrastructure.telemetry import logging as telemetry
from tests.support.service import ApiUser, run_service, settings_for

SOURCE = str(Path(__file__).parents[1] / "src")
WARM_UP, RUNS = 5, 5
_IS_FUNCTION = 0x01
"""The flag `CO_OPTIMIZED`: set for the code of functions, not for that of modules and classes."""

_VARIABLES = {
    "LATCHKEY_AGENT": "openai",
    "LATCHKEY_MODEL": "fake",
    "OPENAI_API_KEY": "bench",
    "LATCHKEY_REQUESTS_PER_MINUTE": "10000000",
}

REQUESTS: dict[str, Callable[[ApiUser], Awaitable[Any]]] = {
    "rest_add_task": lambda user: user.create("tasks", title="Buy milk"),
    "chat_turn_one_tool": lambda user: user.chat("add 1 task"),
}


class FunctionTrace:
    """Records the code of every function that runs in any thread while it is active."""

    def __init__(self) -> None:
        self.codes: set[CodeType] = set()
        self.is_active = False

    def install(self) -> None:
        """Trace this thread and all threads that start from now on."""
        threading.setprofile(self._record)
        sys.setprofile(self._record)

    def uninstall(self) -> None:
        threading.setprofile(None)
        sys.setprofile(None)

    def files(self) -> set[str]:
        """The recorded files below `src/`, relative to it."""
        paths = {code.co_filename for code in self.codes if code.co_flags & _IS_FUNCTION}
        return {path.removeprefix(f"{SOURCE}/") for path in paths if path.startswith(SOURCE)}

    def _record(self, frame: FrameType, event: str, _: Any) -> None:
        if self.is_active and event == "call":
            self.codes.add(frame.f_code)


async def trace(database_url: str, model_url: str) -> dict[str, list[str]]:
    """The files that run in every one of several warm requests, by the name of the request."""
    traced = FunctionTrace()
    traced.install()
    try:
        settings = settings_for(database_url, **_VARIABLES, OPENAI_BASE_URL=model_url)
        async with run_service(settings, on_socket=True) as service:
            user = service.user()
            return {name: await _trace_request(traced, request, user) for name, request in REQUESTS.items()}
    finally:
        traced.uninstall()


async def _trace_request(
    traced: FunctionTrace, request: Callable[[ApiUser], Awaitable[Any]], user: ApiUser
) -> list[str]:
    for _ in range(WARM_UP):
        await request(user)
    runs = []
    for _ in range(RUNS):
        traced.codes.clear()
        traced.is_active = True
        await request(user)
        traced.is_active = False
        runs.append(traced.files())
    return sorted(set.intersection(*runs))


@click.command()
@click.option("--database", "kind", default="postgresql", show_default=True, type=click.Choice(get_args(DatabaseKind)))
@click.option("--json", "as_json", is_flag=True, help="Print the files as a JSON object.")
def main(kind: DatabaseKind, *, as_json: bool) -> None:
    """List the files that run for `POST /tasks` and for a chat turn with one tool call."""
    telemetry.configure()  # logs go to standard error
    with bench_environment(kind) as environment, environment.database("latchkey") as url:
        upgrade(url)
        files_by_request = asyncio.run(trace(url, environment.model_url))
    if as_json:
        click.echo(msgspec.json.encode(files_by_request))
        return
    for name, files in files_by_request.items():
        click.echo(f"{name}: {len(files)} files")
        for file in files:
            click.echo(f"  {file}")


if __name__ == "__main__":
    main()
