"""The duration of a file turn compared with the bare start of the Claude CLI: `python -m bench.file_turn`.

The measurements are interleaved, with a fake Messages API that answers at once. A file turn sends the model two
requests, so the bare CLI gets two questions. The difference is what the service adds.
"""

import asyncio
import json
import os
import tempfile
from asyncio.subprocess import DEVNULL, PIPE
from pathlib import Path
from statistics import median
from time import perf_counter

import click
import httpx2

from latchkey.infrastructure.agents.claude.cli import find_cli
from tests.e2e.claude_service import API_KEY, claude_service, claude_settings, save_artifact_step
from tests.e2e.service_process import BASE_SETTINGS, issue_token, migrate_database
from tests.fakes.model_script import says
from tests.fakes.model_server import ModelServer, model_server

ROUNDS = 7
FLAGS = [
    *("-p", "--bare", "--disable-slash-commands", "--no-session-persistence", "--setting-sources=", "--tools", ""),
    *("--input-format", "stream-json", "--output-format", "stream-json", "--verbose", "--model", "fake"),
]
QUESTION = {"type": "user", "message": {"role": "user", "content": "Hello"}}


async def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder) / "home"
        home.mkdir()
        async with model_server() as model:
            settings = {**BASE_SETTINGS, **claude_settings(model)}
            migrate_database(home, settings)
            with claude_service(home, settings, issue_token("ada", home, settings)) as service:
                authorization = {"authorization": f"Bearer {service.token}"}
                async with httpx2.AsyncClient(base_url=service.replica.url, headers=authorization) as client:
                    await compare(client, model, home)


async def compare(client: httpx2.AsyncClient, model: ModelServer, home: Path) -> None:
    bare: list[float] = []
    turns: list[float] = []
    for number in range(ROUNDS + 1):
        model.script += [says("Hello."), says("Hello again."), save_artifact_step(), says("Here it is.")]
        for seconds, action in ((bare, start_up(model, home)), (turns, file_turn(client))):
            began = perf_counter()
            await action
            if number:  # the first of each warms up
                seconds.append(perf_counter() - began)
    click.echo(
        f"bare start-up {median(bare):.3f} s, file turn {median(turns):.3f} s: {median(turns) / median(bare):.2f}"
    )


async def start_up(model: ModelServer, home: Path) -> None:
    """Run the CLI without tools, from its start to its second answer and its end."""
    environment = {
        "PATH": os.environ["PATH"],
        "HOME": str(home),
        "ANTHROPIC_API_KEY": API_KEY,
        "ANTHROPIC_BASE_URL": model.base_url.removesuffix("/v1"),
        "CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC": "1",
    }
    cli = await asyncio.create_subprocess_exec(
        str(find_cli()), *FLAGS, stdin=PIPE, stdout=PIPE, stderr=DEVNULL, cwd=home, env=environment, limit=2**23
    )
    if cli.stdin is None or cli.stdout is None:
        raise LookupError("pipes")
    for _ in range(2):
        cli.stdin.write(json.dumps(QUESTION).encode() + b"\n")
        await cli.stdin.drain()
        async for line in cli.stdout:
            if json.loads(line)["type"] == "result":
                break
    cli.terminate()
    await cli.wait()


async def file_turn(client: httpx2.AsyncClient) -> None:
    body = {"message": "Write a plan", "artifact_generation": True}
    response = await client.post("/api/ada/chat", json=body, timeout=60)
    response.raise_for_status()


if __name__ == "__main__":
    asyncio.run(main())
