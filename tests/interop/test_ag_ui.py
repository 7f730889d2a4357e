"""AG-UI clients work unmodified with the service: `@ag-ui/client` of both generations, CopilotKit and TanStack AI."""

import asyncio
import json
import re
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncGenerator, AsyncIterator
from itertools import pairwise
from typing import Any

import msgspec
import pytest
import pytest_asyncio
from hypothesis import Phase, given, settings
from hypothesis.strategies import SearchStrategy

from latchkey.application.turns.log import ConversationLog
from latchkey.domain.turn import TurnId
from latchkey.domain.turn_event import TurnEvent
from latchkey.interfaces.http.frontends.ag_ui.history import answer_messages
from latchkey.interfaces.http.frontends.ag_ui.run import Run
from latchkey.interfaces.http.frontends.ag_ui.stream import RunStream
from latchkey.interfaces.http.frontends.ag_ui.tanstack import ui_messages
from latchkey.interfaces.http.frontends.ag_ui.translator import AgUiTranslator
from latchkey.testing.processes import free_port
from tests.browser.backend import Backend, running_backend
from tests.browser.browser_driver import BrowserDriver
from tests.fakes.model_script import says
from tests.fakes.model_server import ModelServer
from tests.interop.check_counter import Checks
from tests.interop.conftest import FOLDER
from tests.node import environment, installed, node
from tests.polling import TIMEOUT_S
from tests.support.event_logs import TURN, continued_logs, event_logs, log_of

pytestmark = pytest.mark.asyncio(loop_scope="session")

SCENARIOS = FOLDER / "ag_ui"
PAGE = FOLDER.parents[1] / "docs/ag-ui.md"
VERSIONS = ["1.0.0", "0.0.59"]
NO_TELEMETRY = {"COPILOTKIT_TELEMETRY_DISABLED": "true"}
_LONGEST_LINE = 2**24


def exported_functions(module: str) -> list[str]:
    source = (SCENARIOS / f"{module}.mjs").read_text()
    return re.findall(r"^export (?:async function|const) (\w+)", source, re.MULTILINE)


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def driver() -> AsyncIterator[BrowserDriver]:
    folder = await asyncio.to_thread(installed, SCENARIOS)
    process = await asyncio.create_subprocess_exec(
        node(), folder / "main.mjs", stdin=PIPE, stdout=PIPE, env=environment(**NO_TELEMETRY), limit=_LONGEST_LINE
    )
    assert process.stdin
    assert process.stdout
    assert json.loads(await process.stdout.readline()) == {"ready": True}
    try:
        yield BrowserDriver("", process)
    finally:
        process.stdin.close()  # ends the process
        await process.wait()


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def backend(
    shared_database_url: str, shared_model: ModelServer, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Backend]:
    home = tmp_path_factory.mktemp("ag_ui") / "home"
    home.mkdir()
    async with running_backend(home, shared_database_url, "http://127.0.0.1", shared_model) as backend:
        yield backend
        await backend.reset()


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("name", exported_functions("http_agent"))
async def test_http_agent_scenario_succeeds(
    name: str, version: str, driver: BrowserDriver, backend: Backend, checks: Checks
) -> None:
    await run("http_agent", name, driver, backend, version=version)
    checks.passed(f"@ag-ui/client {version}")


@pytest.mark.parametrize("name", exported_functions("tanstack"))
async def test_tanstack_scenario_succeeds(name: str, driver: BrowserDriver, backend: Backend, checks: Checks) -> None:
    await run("tanstack", name, driver, backend)
    checks.passed("TanStack AI")


@pytest.mark.parametrize("name", exported_functions("copilotkit"))
async def test_copilotkit_scenario_succeeds(name: str, driver: BrowserDriver, backend: Backend, checks: Checks) -> None:
    await run("copilotkit", name, driver, backend)
    checks.passed("CopilotKit")


@pytest.mark.parametrize("client", ["ag_ui_1", "ag_ui_0", "tanstack"])
async def test_history_equals_messages_that_the_reducer_of_the_client_builds(
    client: str, driver: BrowserDriver, backend: Backend, checks: Checks
) -> None:
    logs = generated_logs(80, event_logs(TURN)) + generated_logs(80, continued_logs(TURN))
    if client == "tanstack":
        logs = [log for log in logs if not has_result_within_text(log)]
        expected = [without_blank_messages(ui_messages(log)) for log in logs]
    else:
        expected = [answer_messages(log) for log in logs]
    streams = [await stream_of(log) for log in logs]
    reduced = await run("reducers", client, driver, backend, runs=[[stream] for stream in streams])
    if client == "tanstack":
        reduced = list(map(without_blank_messages, reduced))

    expected = json.loads(msgspec.json.encode(expected))
    if client == "tanstack":
        for place, stream in enumerate(streams):
            if "MESSAGES_SNAPSHOT" in stream:
                reduced[place], expected[place] = parts_of(reduced[place]), parts_of(expected[place])

    assert reduced == expected
    checks.passed("reducers of AG-UI clients")


@pytest.mark.parametrize("client", ["ag_ui_1", "ag_ui_0"])
async def test_runs_of_a_turn_that_waits_have_the_messages_of_its_history(
    client: str, driver: BrowserDriver, backend: Backend, checks: Checks
) -> None:
    logs = [log for log in generated_logs(100, continued_logs(TURN)) if any(event.is_waiting for event in log)]
    runs = []
    for log in logs:
        ends = [place for place, event in enumerate(log[:-1], 1) if event.is_waiting]
        places = pairwise([0, *ends, len(log)])
        runs.append([await stream_of(log[:end], begins_after=start) for start, end in places])
    expected = json.loads(msgspec.json.encode([answer_messages(log) for log in logs]))
    answered = [log for log in logs if not log[-1].is_waiting]
    reduced = await run("reducers", client, driver, backend, runs=runs)

    assert len(answered) > 10
    assert reduced == expected
    checks.passed("reducers of AG-UI clients")


@pytest.mark.parametrize("place", [0, 2], ids=["HttpAgent", "TanStack AI"])
async def test_example_of_documentation_runs(place: int, backend: Backend, model: ModelServer, checks: Checks) -> None:
    await backend.reset()
    model.script.append(says("Hello", " you."))
    process = await start_example(place, backend)

    async with asyncio.timeout(TIMEOUT_S):
        output, _ = await process.communicate()

    assert "Hello you." in output.decode()
    assert process.returncode == 0
    checks.passed("examples of docs/ag-ui.md")


async def test_runtime_of_documentation_serves_two_turns(
    driver: BrowserDriver, backend: Backend, checks: Checks
) -> None:
    port = free_port()
    await backend.reset()
    process = await start_example(1, backend, PORT=str(port))
    try:
        assert process.stdout
        async with asyncio.timeout(TIMEOUT_S):
            assert str(port) in (await process.stdout.readline()).decode()
        await run("runtime", "two_turns", driver, backend, runtimeUrl=f"http://127.0.0.1:{port}/api/copilotkit")
    finally:
        process.kill()
        await process.wait()
    checks.passed("examples of docs/ag-ui.md")


@pytest.mark.parametrize("name", ["Chat.tsx", "Question.tsx"])
async def test_documentation_shows_the_page_that_is_tested_in_a_browser(name: str) -> None:
    source = (FOLDER.parent / "browser/projects/copilotkit/src" / name).read_text()

    assert f"```tsx\n{source}```" in PAGE.read_text()


async def start_example(place: int, backend: Backend, **variables: str) -> Process:
    """Start a JavaScript example of the documentation."""
    code = re.findall(r"^```js\n(.*?)^```$", PAGE.read_text(), re.MULTILINE | re.DOTALL)[place]
    process = await asyncio.create_subprocess_exec(
        node(),
        "--input-type=module",
        "-",
        stdin=PIPE,
        stdout=PIPE,
        cwd=await asyncio.to_thread(installed, SCENARIOS),
        env=environment(SERVICE_URL=backend.url, TOKEN=backend.new_user()["token"], **NO_TELEMETRY, **variables),
    )
    assert process.stdin
    process.stdin.write(code.encode())
    process.stdin.close()
    return process


def has_result_within_text(log: list[TurnEvent]) -> bool:
    """No agent goes on with a text while calls are open. TanStack AI would show the beginning of the text twice."""
    translator = AgUiTranslator(Run("t1", "r1"))
    types = [translated["type"] for event in log for translated in translator.events(event)]
    return ("TEXT_MESSAGE_CONTENT", "TOOL_CALL_RESULT") in pairwise(types)


def without_blank_messages(messages: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """TanStack AI removes an answer that is white space at the end of a run, unless the run has failed."""
    return [
        message
        for message in messages
        if any(part["type"] != "text" or part["content"].strip() for part in message["parts"])
    ]


def parts_of(messages: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The parts in order. TanStack AI takes the messages of a snapshot as they are, and groups those of a stream.

    A result in a snapshot has an id and metadata.
    """
    parts = [part for message in messages for part in message["parts"]]
    unnamed = {"id", "metadata"}
    return [
        {name: part[name] for name in part.keys() - unnamed} if part["type"] == "tool-result" else part
        for part in parts
    ]


def generated_logs(count: int, strategy: SearchStrategy[list[TurnEvent]]) -> list[list[TurnEvent]]:
    logs = []

    @settings(max_examples=count, deadline=None, database=None, derandomize=True, phases=[Phase.generate])
    @given(strategy)
    def collect(log: list[TurnEvent]) -> None:
        logs.append(log)

    collect()
    return logs


async def stream_of(log: list[TurnEvent], begins_after: int = 0) -> str:
    """The stream of a client that follows the turn, and receives each event by itself."""

    async def follow() -> AsyncGenerator[list[TurnEvent], None]:
        for event in log:
            yield [event]

    async def read_log(_: TurnId, seq: int) -> ConversationLog:
        return ConversationLog(TURN.conversation_id, [log_of([event for event in log if event.seq <= seq])])

    stream = RunStream(follow(), Run("t1", "r1", begins_after=begins_after), read_log)
    return (
        b"".join([stream.encode(event) async for batch in stream.batches() for event in batch]) + stream.end()
    ).decode()


async def run(module: str, name: str, driver: BrowserDriver, backend: Backend, **values: Any) -> Any:
    await backend.reset()
    return await driver.run(module, name, {"user": backend.new_user(), "url": backend.url, **values}, backend.handlers)
