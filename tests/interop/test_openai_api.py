"""OpenAI's SDKs for JavaScript against the service, and the examples of docs/openai-api.md."""

import asyncio
import json
import re
import sys
from asyncio import Event, StreamReader, StreamWriter
from asyncio.subprocess import PIPE
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from typing import Any

import msgspec
import pytest
import pytest_asyncio
from hypothesis import given, settings
from hypothesis import strategies as st

from latchkey.domain.turn_event import TurnEvent
from latchkey.interfaces.http.frontends.openai.history import response_of
from tests.fakes.model_script import Step, calls, fails, says
from tests.fakes.model_server import ModelServer
from tests.interop.check_counter import Checks
from tests.interop.conftest import FOLDER
from tests.node import environment, installed, node
from tests.support.event_logs import TURN, continued_logs, event_logs, log_of
from tests.support.openai_sdk import KEEPALIVE, frames_of, parts_of
from tests.support.service import ApiUser, Service, model_variables, run_service, settings_for

pytestmark = pytest.mark.asyncio(loop_scope="session")

PACKAGES = {"openai": "openai 7 (JavaScript)", "openai-6": "openai 6 (JavaScript)"}
PAGE = FOLDER.parents[1] / "docs/openai-api.md"
TIMEOUT_S = 60
MILK = ("add_task", '{"title": "Buy milk"}')
TEA, BREAD = ("add_task", '{"title": "Tea"}'), ("add_task", '{"title": "Bread"}')
PLAN = ("save_artifact", '{"title": "Plan", "content_markdown": "# Plan"}')
MESSAGE, CALL = ["message", "completed"], ["mcp_call", "completed"]
REFUSED = [fails(401), fails(429, x_should_retry="false")]

Script = Callable[[Event], list[Step]]

SCRIPTS: dict[str, Script] = {
    "text": lambda _: [says("Hello, ", "Ada.")],
    "tool_calls": lambda _: [
        calls(MILK, ("add_task", '{"title": ""}'), saying=("I add it.",)),
        says("One worked."),
    ],
    "artifact": lambda _: [calls(PLAN), says("Here it is.")],
    "two_turns": lambda _: [says("First."), says("Second.")],
    "branch": lambda _: [says("First."), says("Second."), says("Other.")],
    "resume": lambda gate: [calls(MILK, saying=("I add it.",)), says("Done.").held(gate)],
    "cut": lambda gate: [says("One two three.").held(gate)],
    "retry": lambda gate: [says("Once.").held(gate), says("Twice.")],
    "background": lambda gate: [says("Done.").held(gate)],
    "cancel": lambda gate: [says("Half").held(gate)],
    "approvals": lambda _: [calls(MILK, TEA, BREAD), says("Two of them.")],
    "approval_resume": lambda gate: [calls(MILK), says("Done.").held(gate)],
    "failure": lambda _: [*REFUSED],
    "assistants": lambda _: [],
    "refusals": lambda gate: [says("Wait").held(gate)],
}
EXPECTED: dict[str, dict[str, Any]] = {
    "text": {"status": "completed", "text": "Hello, Ada.", "items": [MESSAGE], "reloaded": True},
    "tool_calls": {
        "status": "completed",
        "text": "I add it.\n\nOne worked.",
        "items": [MESSAGE, CALL, ["mcp_call", "failed"], MESSAGE],
        "deltas": "I add it.\n\nOne worked.",
        "added": ["add_task", "latchkey", "Buy milk", "Buy milk"],
        "refused": "invalid",
        "reloaded": True,
    },
    "artifact": {"status": "completed", "text": "Here it is.", "items": [CALL, MESSAGE], "title": "Plan"},
    "two_turns": {
        "title": "Groceries",
        "texts": ["One", "First.", "Two", "Second."],
        "reversed": True,
        "outputs": True,
    },
    "branch": {"texts": ["One", "First.", "Instead", "Other."]},
    "resume": {
        "status": "completed",
        "text": "I add it.\n\nDone.",
        "items": [MESSAGE, CALL, MESSAGE],
        "numbers": True,
        "again": True,
        "last": "response.completed",
    },
    "cut": {"failed": True, "text": "One two three.", "numbers": True, "posts": 1},
    "retry": {"status": "completed", "text": "Once.", "items": [MESSAGE], "posts": 2, "messages": 2},
    "background": {"at_once": "in_progress", "status": "completed", "text": "Done.", "items": [MESSAGE]},
    "cancel": {
        "status": "cancelled",
        "text": "Half",
        "items": [["message", "incomplete"]],
        "at_once": "cancelled",
        "end": ["response.incomplete", "cancelled"],
    },
    "approvals": {
        "first": ["completed", ["mcp_approval_request"] * 3],
        "seen": [*["mcp_call"] * 3, *["mcp_approval_request"] * 3],
        "rounds": [
            [["add_task", title, "latchkey"] for title in ("Buy milk", "Tea", "Bread")],
            [["mcp_call", "mcp_call", "mcp_approval_request"], True, True],
            [["add_task", "Bread", "latchkey"]],
            [["mcp_call", "message"], True, True],
        ],
        "status": "completed",
        "text": "Two of them.",
        "items": [CALL, MESSAGE],
        "approved": ['{"title":"Bread"}', True],
        "history": [
            "message",
            *["mcp_approval_request"] * 3,
            *["mcp_approval_response", "mcp_call"] * 3,
            "message",
        ],
        "opposite": ["ConflictError", 409, "conflict"],
    },
    "approval_resume": {"status": "completed", "text": "Done.", "items": [CALL, MESSAGE], "numbers": True},
    "failure": {
        "codes": ["server_error", "rate_limit_exceeded"],
        "statuses": ["failed", "failed"],
        "requests": ["POST /responses", "POST /responses"],
    },
    "assistants": {"models": ["latchkey", "default"], "one": "latchkey"},
    "refusals": {
        "token": ["AuthenticationError", 401, "unauthenticated"],
        "image": ["UnprocessableEntityError", 422, "invalid"],
        "unknown": ["NotFoundError", 404, "not-found"],
        "busy": ["ConflictError", 409, "turn-in-progress"],
        "path": ["NotFoundError", 404, "not-found"],
        "requests": 5,
    },
}


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def model_service(shared_database_url: str, shared_model: ModelServer) -> AsyncIterator[Service]:
    variables = model_variables(shared_model)
    async with run_service(settings_for(shared_database_url, **variables), on_socket=True) as service:
        yield service


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def approval_service(
    shared_database_url: str, shared_model: ModelServer, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Service]:
    """A service whose assistant asks the user before it adds a task."""
    file = tmp_path_factory.mktemp("assistants") / "assistants.toml"
    file.write_text('[assistant.default]\napprove = ["add_task"]\n')
    variables = {**model_variables(shared_model), "LATCHKEY_ASSISTANTS": str(file)}
    async with run_service(settings_for(shared_database_url, **variables), on_socket=True) as service:
        yield service


@pytest.mark.parametrize("package", PACKAGES)
@pytest.mark.parametrize("scenario", SCRIPTS)
async def test_sdk_for_javascript_scenario_has_expected_result(
    package: str,
    scenario: str,
    model_service: Service,
    approval_service: Service,
    model: ModelServer,
    checks: Checks,
) -> None:
    gate = Event()
    model.script += SCRIPTS[scenario](gate)
    user = (approval_service if scenario.startswith("approval") else model_service).user()
    try:
        async with cutting_proxy(user) as proxy:
            result = await run_scenario(package, scenario, user, Backend(model, gate, proxy))
    finally:
        gate.set()

    assert result == EXPECTED[scenario]
    checks.passed(PACKAGES[package], len(EXPECTED[scenario]))


class CuttingProxy:
    """A TCP proxy in front of the service, which aborts all its connections."""

    def __init__(self, host: str, port: int) -> None:
        self._server = host, port
        self._writers: list[StreamWriter] = []
        self.url = ""

    async def connect(self, reader: StreamReader, writer: StreamWriter) -> None:
        server_reader, server_writer = await asyncio.open_connection(*self._server)
        self._writers += [writer, server_writer]
        await asyncio.gather(self._forward(reader, server_writer), self._forward(server_reader, writer))

    def cut(self) -> None:
        for writer in self._writers:
            writer.transport.abort()

    async def _forward(self, source: StreamReader, sink: StreamWriter) -> None:
        with suppress(ConnectionError):
            while chunk := await source.read(65_536):
                sink.write(chunk)
                await sink.drain()
        sink.close()


@asynccontextmanager
async def cutting_proxy(user: ApiUser) -> AsyncIterator[CuttingProxy]:
    url = user.client.base_url
    proxy = CuttingProxy(url.host, url.port or 80)
    async with await asyncio.start_server(proxy.connect, "127.0.0.1", 0) as server:
        host, port = server.sockets[0].getsockname()
        proxy.url = f"http://{host}:{port}"
        yield proxy
        proxy.cut()


@dataclass(frozen=True)
class Backend:
    """Controls the model and the proxy where a scenario waits."""

    model: ModelServer
    gate: Event
    proxy: CuttingProxy

    async def reach(self, place: str) -> None:
        match place:
            case "running":
                await self.model.wait_for_requests()
            case "delta":
                self.proxy.cut()
            case "waiting":
                await self.model.wait_for_requests()
                self.proxy.cut()
            case _:
                self.gate.set()


async def run_scenario(package: str, scenario: str, user: ApiUser, backend: Backend) -> Any:
    """Run a scenario and return what it received."""
    service = {"url": _url(user), "cutting_url": backend.proxy.url, "user": user.user_id, "token": user.token}
    program = installed(FOLDER / "openai_api") / "scenarios.mjs"
    process = await asyncio.create_subprocess_exec(
        node(), program, package, scenario, stdin=PIPE, stdout=PIPE, env=environment(SERVICE=json.dumps(service))
    )
    assert process.stdin
    assert process.stdout
    try:
        async with asyncio.timeout(TIMEOUT_S):
            async for line in process.stdout:
                message = json.loads(line)
                if "result" in message:
                    return message["result"]
                await backend.reach(message["reached"])
                process.stdin.write(b"\n")
    finally:
        with suppress(ProcessLookupError):
            process.kill()
        await process.wait()
    raise AssertionError(f"{scenario} ended without a result")


@pytest.mark.parametrize("package", PACKAGES)
async def test_sdk_for_javascript_accumulates_streams_to_same_responses_as_histories(
    package: str, checks: Checks
) -> None:
    responses = [(events, part) for events in generated_logs() for part in parts_of(events)]
    streams = [frames_of(events, between=KEEPALIVE, part=part).decode() for events, part in responses]
    program = installed(FOLDER / "openai_api") / "accumulate.mjs"
    process = await asyncio.create_subprocess_exec(node(), program, package, stdin=PIPE, stdout=PIPE, env=environment())

    async with asyncio.timeout(TIMEOUT_S):
        output, _ = await process.communicate(json.dumps(streams).encode())

    for (events, part), accumulated in zip(responses, json.loads(output), strict=True):
        history = json.loads(msgspec.json.encode(response_of(log_of(events), part)))
        texts = [item["content"][0]["text"] for item in history["output"] if item["type"] == "message"]
        assert accumulated == {**history, "output_text": "".join(texts)}
    checks.passed(PACKAGES[package], len(responses))


def generated_logs() -> list[list[TurnEvent]]:
    """The same logs in each run: both packages are compared with the same histories."""
    logs: list[list[TurnEvent]] = []

    @settings(derandomize=True, database=None, max_examples=100, deadline=None)
    @given(st.one_of(event_logs(TURN), continued_logs(TURN)))
    def collect(events: list[TurnEvent]) -> None:
        logs.append(events)

    collect()
    return logs


@pytest.mark.parametrize("language", ["python", "js"])
async def test_example_of_documentation_runs(
    language: str, model_service: Service, model: ModelServer, checks: Checks
) -> None:
    model.script += [calls(MILK), says("It is on the list."), says("Bread.")]
    user = model_service.user()
    block = re.search(rf"^```{language}\n(.*?)^```$", PAGE.read_text(), re.MULTILINE | re.DOTALL)
    assert block
    command = [sys.executable, "-"] if language == "python" else [str(node()), "--input-type=module", "-"]
    process = await asyncio.create_subprocess_exec(
        *command,
        stdin=PIPE,
        stdout=PIPE,
        cwd=installed(FOLDER / "openai_api"),
        env=environment(SERVICE_URL=_url(user), TOKEN=user.token),
    )

    async with asyncio.timeout(TIMEOUT_S):
        output, _ = await process.communicate(block[1].encode())

    lines = output.decode().splitlines()
    assert lines[0].startswith("It is on the list.add_task")
    assert lines[1:] == ["Bread.", "message", "mcp_call", "message", "message", "message"]
    checks.passed("examples of docs/openai-api.md", len(lines))


async def test_example_of_approvals_in_documentation_runs(
    approval_service: Service, model: ModelServer, checks: Checks
) -> None:
    model.script += [calls(MILK, TEA), says("Only the milk.")]
    user = approval_service.user()
    blocks = re.findall(r"^```python\n(.*?)^```$", PAGE.read_text(), re.MULTILINE | re.DOTALL)
    client, _, _ = blocks[0].partition("\nconversation")
    process = await asyncio.create_subprocess_exec(
        *[sys.executable, "-c", client + blocks[1]],
        stdin=PIPE,
        stdout=PIPE,
        env=environment(SERVICE_URL=_url(user), TOKEN=user.token),
    )

    async with asyncio.timeout(TIMEOUT_S):
        output, _ = await process.communicate(b"y\nn\n")

    questions = 'add_task {"title":"Buy milk"}? [y/n] add_task {"title":"Tea"}? [y/n] '
    assert output.decode() == f"{questions}Only the milk.\n"
    assert [task["title"] for task in await user.list_items("tasks")] == ["Buy milk"]
    checks.passed("examples of docs/openai-api.md", 2)


def _url(user: ApiUser) -> str:
    return str(user.client.base_url).rstrip("/")
