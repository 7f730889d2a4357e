"""The clients in `clients/`: connections that are cut, a service that is killed, and the packages."""

import asyncio
import json
import os
import re
import shutil
import subprocess
import sys
import tarfile
import zipfile
from asyncio import StreamReader, StreamWriter
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from time import monotonic
from typing import Any

import pytest
import pytest_asyncio

from tests.browser.backend import Backend, running_backend
from tests.fakes.model_server import ModelServer
from tests.integration.database.tcp_proxy import proxy_to
from tests.interop.check_counter import Checks
from tests.interop.conftest import FOLDER
from tests.node import environment, installed, node, npm
from tests.polling import TIMEOUT_S, wait_until
from tests.schemas import DOCS

ROOT = FOLDER.parents[1]
TYPESCRIPT, PYTHON = ROOT / "clients/typescript", ROOT / "clients/python"
CLIENTS = ("TypeScript client", "Python client")
TEXT = [f"word{number} " for number in range(8)]
UNAVAILABLE = {
    "type": "urn:latchkey:problem:unavailable",
    "title": "Unavailable",
    "status": 503,
    "detail": "Later.",
    "code": "unavailable",
    "request_id": "1",
}

clients = pytest.mark.parametrize("client", CLIENTS)


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def backend(
    shared_sqlite_url: str, shared_model: ModelServer, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Backend]:
    home = tmp_path_factory.mktemp("clients") / "home"
    home.mkdir()
    async with running_backend(home, shared_sqlite_url, "http://localhost", shared_model) as backend:
        yield backend


@pytest.fixture(scope="session")
def package(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the TypeScript package as npm would install it."""
    sources = copy_sources(tmp_path_factory.mktemp("package"))
    run_npm(sources, "run", "build")
    run_npm(sources, "pack", "--ignore-scripts", "--silent")
    (archive,) = sources.glob("*.tgz")
    with tarfile.open(archive) as packed:
        packed.extractall(sources / "unpacked", filter="data")
    folder = sources / "unpacked" / "package"
    (folder / "node_modules").symlink_to(TYPESCRIPT / "node_modules")
    return folder


def copy_sources(home: Path) -> Path:
    """Copy the sources of the TypeScript client, with what it is generated from. Returns their folder."""
    folder = home / "clients/typescript"
    ignored = shutil.ignore_patterns("node_modules", "dist", ".installing")
    shutil.copytree(installed(TYPESCRIPT), folder, ignore=ignored)
    (folder / "node_modules").symlink_to(TYPESCRIPT / "node_modules")
    (home / "docs").mkdir()
    shutil.copy(DOCS / "openapi.json", home / "docs")
    return folder


@dataclass
class Call:
    """A call that a client makes in a process of its own."""

    process: Process
    events: list[list[Any]] = field(default_factory=list)

    async def read(self) -> dict[str, Any]:
        """Wait for the next line of output; empty at the end."""
        assert self.process.stdout is not None
        async with asyncio.timeout(TIMEOUT_S):
            line = await self.process.stdout.readline()
        output: dict[str, Any] = json.loads(line or b"{}")
        if "event" in output:
            self.events.append(output["event"])
        return output

    async def read_text(self) -> None:
        """Wait for the next piece of text."""
        while (await self.read())["event"][1] != "message.delta":
            pass

    async def finish(self) -> dict[str, Any]:
        """Read all events. Returns the last output."""
        last: dict[str, Any] = {}
        while output := await self.read():
            last = output
        assert await self.process.wait() == 0
        return last

    def check_events(self, last: str = "turn.completed", text: list[str] = TEXT) -> None:
        """Each event was received once, in order, up to the last one."""
        received = "".join(event[2]["text"] for event in self.events if event[1] == "message.delta")
        assert [event[0] for event in self.events] == list(range(1, len(self.events) + 1))
        assert (self.events[-1][1], received) == (last, "".join(text))


@asynccontextmanager
async def calling(client: str, package: Path, url: str, user: dict[str, str], **call: Any) -> AsyncIterator[Call]:
    """Start a client that makes this call."""
    variables = {"CALL": json.dumps({"url": url, "token": user["token"], "options": {}, **call})}
    folder = FOLDER / "latchkey_clients"
    if client == "TypeScript client":
        command = [node(), folder / "call.mjs", package / "dist/index.js"]
    else:
        command = [Path(sys.executable), folder / "call.py"]
        variables["PYTHONPATH"] = str(PYTHON / "src")
    process = await asyncio.create_subprocess_exec(*command, stdout=PIPE, env={**os.environ, **variables}, limit=2**20)
    try:
        yield Call(process)
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


@asynccontextmanager
async def answering(answer: Callable[[str, StreamWriter], Awaitable[None]]) -> AsyncIterator[str]:
    """A server that answers each request with what the function writes. It is given the head in small letters."""

    async def serve(reader: StreamReader, writer: StreamWriter) -> None:
        await answer((await reader.readuntil(b"\r\n\r\n")).decode().lower(), writer)
        await writer.drain()
        writer.close()

    async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"


async def script(backend: Backend, *pieces: str) -> None:
    """The model answers with these pieces, each when it is released."""
    await backend.reset()
    await backend.handlers["script_model"]([{"says": pieces, "paced": True}])


async def release(backend: Backend, count: int) -> None:
    await backend.handlers["send_pieces"](count)


@clients
@pytest.mark.asyncio(loop_scope="session")
async def test_stream_that_is_cut_twice_resumes_without_gap_or_repetition(
    client: str, package: Path, backend: Backend, checks: Checks
) -> None:
    user = backend.new_user()
    await script(backend, *TEXT)
    async with (
        proxy_to(backend.port) as proxy,
        calling(client, package, f"http://127.0.0.1:{proxy.port}", user, name="stream", message="Go") as call,
    ):
        for _ in range(2):
            await release(backend, 2)
            await call.read_text()
            await proxy.disconnect()
            await release(backend, 1)
            await proxy.restore()
        await backend.handlers["release_model"]()
        await call.finish()

    call.check_events()
    assert len(backend.model.requests) == 1
    checks.passed(client, 4)


@clients
@pytest.mark.asyncio(loop_scope="session")
async def test_stream_that_is_silent_for_too_long_is_resumed_on_a_new_connection(
    client: str, package: Path, backend: Backend, checks: Checks
) -> None:
    """A connection whose peer has vanished does not end by itself."""
    options = {"idleMs": 500} if client == "TypeScript client" else {"idle_s": 0.5}
    await script(backend, *TEXT)
    async with (
        proxy_to(backend.port) as proxy,
        calling(
            client,
            package,
            f"http://127.0.0.1:{proxy.port}",
            backend.new_user(),
            name="stream",
            message="Go",
            options=options,
        ) as call,
    ):
        await release(backend, 2)
        await call.read_text()
        connections = proxy.connections
        proxy.freeze()

        async def has_reconnected() -> bool:
            return proxy.connections > connections

        await wait_until(has_reconnected)
        await proxy.restore()
        await backend.handlers["release_model"]()
        await call.finish()

    call.check_events()
    checks.passed(client, 2)


@clients
@pytest.mark.asyncio(loop_scope="session")
async def test_stream_goes_on_after_the_service_was_killed_and_restarted(
    client: str, package: Path, backend: Backend, checks: Checks
) -> None:
    """The turn is lost with its process. The client learns that from the restarted service."""
    await script(backend, *TEXT)
    async with calling(client, package, backend.url, backend.new_user(), name="stream", message="Go") as call:
        await release(backend, 2)
        await call.read_text()
        await backend.kill()
        await backend.start()
        await call.finish()

    received = [event[2]["text"] for event in call.events if event[1] == "message.delta"]
    call.check_events("turn.interrupted", received)
    assert "".join(TEXT).startswith("".join(received))
    checks.passed(client, 3)


@clients
@pytest.mark.asyncio(loop_scope="session")
async def test_chat_whose_connection_is_cut_gets_the_answer_of_its_turn(
    client: str, package: Path, backend: Backend, checks: Checks
) -> None:
    await script(backend, *TEXT)
    async with (
        proxy_to(backend.port) as proxy,
        calling(
            client, package, f"http://127.0.0.1:{proxy.port}", backend.new_user(), name="chat", message="Go"
        ) as call,
    ):
        await backend.model.wait_for_requests()
        await proxy.disconnect()
        await proxy.restore()
        await backend.handlers["release_model"]()

        assert await call.finish() == {"answer": "".join(TEXT)}
    assert len(backend.model.requests) == 1
    checks.passed(client, 2)


@clients
@pytest.mark.asyncio(loop_scope="session")
async def test_request_waits_for_a_service_that_starts(
    client: str, package: Path, backend: Backend, checks: Checks
) -> None:
    user = backend.new_user()
    await backend.kill()
    async with calling(client, package, backend.url, user, name="add_task", message="Buy milk") as call:
        await asyncio.sleep(0)
        await backend.start()

        assert await call.finish() == {"answer": "Buy milk"}
    checks.passed(client)


@clients
@pytest.mark.asyncio(loop_scope="session")
async def test_turn_is_followed_from_a_given_event(
    client: str, package: Path, backend: Backend, checks: Checks
) -> None:
    user = backend.new_user()
    await script(backend, *TEXT)
    await backend.handlers["release_model"]()
    async with calling(client, package, backend.url, user, name="stream", message="Go") as call:
        await call.finish()
    turn_id, number = call.events[0][2]["turn_id"], len(call.events)
    async with calling(client, package, backend.url, user, name="follow", turn_id=turn_id, after=2) as rest:
        await rest.finish()

    assert rest.events == call.events[2:number]
    checks.passed(client)


@clients
@pytest.mark.asyncio(loop_scope="session")
async def test_disconnect_from_a_stream_does_not_end_its_turn(
    client: str, package: Path, backend: Backend, checks: Checks
) -> None:
    user = backend.new_user()
    await script(backend, *TEXT)
    async with calling(client, package, backend.url, user, name="stream", message="Go", leave_after=2) as call:
        await release(backend, 2)
        assert await call.finish() == {"left": True}
    await backend.handlers["release_model"]()
    async with calling(
        client, package, backend.url, user, name="follow", turn_id=call.events[0][2]["turn_id"], after=0
    ) as again:
        await again.finish()

    again.check_events()
    checks.passed(client, 2)


@clients
@pytest.mark.asyncio(loop_scope="session")
async def test_problem_that_is_not_temporary_is_raised_at_once(
    client: str, package: Path, backend: Backend, checks: Checks
) -> None:
    user = backend.new_user()
    await backend.reset()
    unknown = "01a22770-5b1a-7c4e-9a3f-0d6c7e9b2f10"
    async with calling(client, package, backend.url, user, name="follow", turn_id=unknown, after=0) as call:
        missing = await call.finish()
    async with calling(client, package, backend.url, {**user, "token": "x"}, name="chat", message="Go") as call:
        refused = await call.finish()
    await backend.handlers["script_model"]([{"fails_with": 400}])
    async with calling(client, package, backend.url, user, name="chat", message="Go") as call:
        failed = await call.finish()

    assert missing["problem"] == [404, "not-found", "There is no such turn."]
    assert refused["problem"][:2] == [401, "unauthenticated"]
    assert failed["problem"][:2] == [502, "model-unavailable"]
    assert len(backend.model.requests) == 1
    checks.passed(client, 3)


@clients
@pytest.mark.asyncio(loop_scope="session")
async def test_retry_waits_as_retry_after_says_and_keeps_its_idempotency_key(
    client: str, package: Path, checks: Checks
) -> None:
    requests: list[tuple[float, str]] = []

    async def answer(head: str, writer: StreamWriter) -> None:
        requests.append((monotonic(), next(line for line in head.split("\r\n") if line.startswith("idempotency-key"))))
        body = json.dumps(UNAVAILABLE if len(requests) == 1 else {"title": "Buy milk"})
        status, kind = ("503 No", "problem+json") if len(requests) == 1 else ("201 Created", "json")
        lines = [f"HTTP/1.1 {status}", f"content-type: application/{kind}", "retry-after: 1", "connection: close"]
        writer.write("\r\n".join([*lines, f"content-length: {len(body)}", "", body]).encode())

    async with (
        answering(answer) as url,
        calling(client, package, url, {"token": "x"}, name="add_task", message="Buy milk") as call,
    ):
        assert await call.finish() == {"answer": "Buy milk"}

    (first, key), (second, same_key) = requests
    assert key == same_key
    assert second - first >= 1
    checks.passed(client, 3)


@clients
@pytest.mark.asyncio(loop_scope="session")
async def test_stream_in_single_bytes_with_comments_and_unusual_line_ends_in_texts_is_read(
    client: str, package: Path, checks: Checks
) -> None:
    """U+2028 and U+0085 end a line for `str.splitlines`, and not in server-sent events."""
    text = ["Zürich 🥛", "a\u2028b\u0085c\x0bd", "\n\ndata: x\n\n"]
    texts = [{"text": piece} for piece in text]
    data = [{"agent": "openai"}, *texts, {"response": "".join(text)}]
    names = ["turn.started", *["message.delta"] * len(text), "turn.completed"]
    encoded = [json.dumps({"turn_id": "x", "seq": seq, **each}, ensure_ascii=False) for seq, each in enumerate(data, 1)]
    frames = [
        f"id: {seq}\nevent: {name}\ndata: {each}\n\n:\n\n"
        for seq, (name, each) in enumerate(zip(names, encoded, strict=True), 1)
    ]

    async def answer(_: str, writer: StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\nconnection: close\r\n\r\n")
        for byte in "".join(frames).encode():
            writer.write(bytes([byte]))
            await writer.drain()
            await asyncio.sleep(0)

    async with (
        answering(answer) as url,
        calling(client, package, url, {"token": "x"}, name="stream", message="Go") as call,
    ):
        await call.finish()

    call.check_events(text=text)
    checks.passed(client)


def test_generated_types_match_the_openapi_document(tmp_path: Path) -> None:
    """If not, run `make schemas`."""
    folder = copy_sources(tmp_path)
    run_npm(folder, "run", "generate")

    assert (TYPESCRIPT / "src/schema.ts").read_text() == (folder / "src/schema.ts").read_text()


def test_typescript_package_has_what_a_page_needs(package: Path) -> None:
    files = {str(path.relative_to(package)) for path in package.rglob("*") if path.is_file()}
    dependencies = json.loads((package / "package.json").read_text())["dependencies"]

    assert files == {
        *("LICENSE", "README.md", "package.json", "dist/index.d.ts", "dist/index.js"),
        *("dist/schema.d.ts", "dist/schema.js"),
    }
    assert list(dependencies) == ["openapi-fetch"]


def test_example_of_the_typescript_client_compiles_in_strict_mode(tmp_path: Path) -> None:
    folder = copy_sources(tmp_path)
    (example,) = re.findall("```ts\n(.*?)```", (TYPESCRIPT / "README.md").read_text(), re.DOTALL)
    declared = "declare function show(text: string): void;\ndeclare function getToken(): Promise<string>;\n"
    (folder / "src/example.ts").write_text(declared + example.replace("@latchkey/client", "./index.js"))

    run_npm(folder, "run", "build")


@pytest.mark.asyncio(loop_scope="session")
async def test_example_of_the_python_client_runs(backend: Backend, tmp_path: Path, checks: Checks) -> None:
    await backend.reset()
    await backend.handlers["script_model"]([{"says": ["I will", "."]}, {"says": ["Milk."]}])
    (example,) = re.findall("```python\n(.*?)```", (PYTHON / "README.md").read_text(), re.DOTALL)
    (tmp_path / "example.py").write_text(example.replace("http://127.0.0.1:8000", backend.url))
    variables = {"TOKEN": backend.new_user()["token"], "PYTHONPATH": str(PYTHON / "src")}
    process = await asyncio.create_subprocess_exec(
        sys.executable, tmp_path / "example.py", stdout=PIPE, env={**os.environ, **variables}
    )
    output, _ = await process.communicate()

    assert output.decode() == "I will.Milk.\nBuy milk 1\n404 not-found\n"
    checks.passed("Python client", 4)


def test_python_package_can_be_built(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(tmp_path), str(PYTHON)]
    subprocess.run(command, check=True, capture_output=True, timeout=120)
    (wheel,) = tmp_path.glob("latchkey_client-*.whl")
    with zipfile.ZipFile(wheel) as built:
        files = {name: built.read(name).decode() for name in built.namelist()}
    (metadata,) = (text for name, text in files.items() if name.endswith("METADATA"))

    assert {"latchkey_client/__init__.py", "latchkey_client/py.typed"} < files.keys()
    assert re.findall("Requires-Dist: (.*)", metadata) == ["httpx2==2.*"]


@pytest.mark.parametrize("source", [TYPESCRIPT / "src/index.ts", PYTHON / "src/latchkey_client/__init__.py"])
def test_client_has_at_most_200_lines(source: Path) -> None:
    assert len(source.read_text().splitlines()) <= 200


@pytest.mark.parametrize("folder", [TYPESCRIPT, PYTHON])
def test_client_has_the_license_of_the_service(folder: Path) -> None:
    assert (folder / "LICENSE").read_text() == (ROOT / "LICENSE").read_text()


def run_npm(folder: Path, *arguments: str) -> None:
    done = subprocess.run(
        npm(*arguments), cwd=folder, env=environment(), capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
