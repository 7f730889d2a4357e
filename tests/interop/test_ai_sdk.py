"""The AI SDK of Vercel, unmodified, as pages with `useChat` use it: each check with each release."""

import asyncio
import json
import re
from asyncio.subprocess import PIPE
from collections.abc import AsyncIterator
from itertools import pairwise
from typing import Any

import msgspec
import pytest
import pytest_asyncio
from hypothesis import given, settings

from latchkey.domain.turn_event import ApprovalDecidedEvent, TurnEvent, without_withdrawn
from latchkey.interfaces.http.frontends.ai_sdk.approvals import ContinuationTranslator, posted_decisions
from latchkey.interfaces.http.frontends.ai_sdk.history import assistant_message
from latchkey.interfaces.http.frontends.ai_sdk.requests import ChatRequest
from latchkey.interfaces.http.frontends.ai_sdk.translator import UIMessageTranslator
from tests.browser.backend import Backend, running_backend
from tests.browser.browser_driver import BrowserDriver
from tests.fakes.model_server import ModelServer
from tests.interop.check_counter import Checks
from tests.interop.conftest import FOLDER
from tests.node import environment, installed, node
from tests.support.event_logs import TURN, continued_logs, event_logs

pytestmark = pytest.mark.asyncio(loop_scope="session")

PACKAGE = FOLDER / "ai_sdk"
VERSIONS = ("7", "6", "5.0.277", "5.0.14")
CHECKS = re.findall(r"^export async function (\w+)", (PACKAGE / "checks.mjs").read_text(), re.MULTILINE)
_LONGEST_LINE = 2**24


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def driver() -> AsyncIterator[BrowserDriver]:
    """The Node.js process that runs the checks."""
    command = [node(), await asyncio.to_thread(installed, PACKAGE) / "main.mjs"]
    process = await asyncio.create_subprocess_exec(
        *command, stdin=PIPE, stdout=PIPE, env=environment(), limit=_LONGEST_LINE
    )
    assert process.stdin
    yield BrowserDriver("", process)
    process.stdin.close()
    await process.wait()


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def backend(
    shared_database_url: str, shared_model: ModelServer, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Backend]:
    home = tmp_path_factory.mktemp("ai_sdk") / "home"
    home.mkdir()
    async with running_backend(home, shared_database_url, "http://localhost", shared_model) as backend:
        yield backend


@pytest.mark.parametrize("check", CHECKS)
@pytest.mark.parametrize("version", VERSIONS)
async def test_ai_sdk_check_succeeds(
    version: str, check: str, driver: BrowserDriver, backend: Backend, checks: Checks
) -> None:
    await backend.reset()
    handlers = {
        **backend.handlers,
        "generated_logs": generated_logs,
        "waiting_logs": waiting_logs,
        "continue_stream": continue_stream,
    }
    await driver.run(version, check, {"user": backend.new_user(), "url": backend.url}, handlers)
    checks.passed(f"AI SDK {version}")


async def generated_logs(has_approvals: bool) -> list[dict[str, Any]]:  # noqa: FBT001 - called from JavaScript
    """Streams of turns, each with its message in the history. They are the same in each run."""
    logs: list[dict[str, Any]] = []

    @settings(derandomize=True, database=None, max_examples=150, deadline=None)
    @given(event_logs(TURN) | continued_logs(TURN))
    def add(events: list[TurnEvent]) -> None:
        translator = UIMessageTranslator(has_approvals=has_approvals)
        stream = b"".join(map(translator.translate, without_withdrawn(events))) + translator.end()
        message = assistant_message(events, has_approvals=has_approvals)
        logs.append({"stream": stream.decode(), "history": json.loads(msgspec.json.encode(message))})

    add()
    return logs


async def waiting_logs() -> list[dict[str, Any]]:
    """Logs of turns that wait, with the first stream of a page, and what the history has in the end.

    `decisions` are those between two streams. They are the same in each run.
    """
    logs: list[dict[str, Any]] = []
    _LOGS.clear()

    @settings(derandomize=True, database=None, max_examples=150, deadline=None)
    @given(continued_logs(TURN))
    def add(generated: list[TurnEvent]) -> None:
        events = without_withdrawn(generated)
        stops = [index + 1 for index, event in enumerate(events) if event.is_waiting]
        if not stops or stops[0] == len(events):
            return
        translator = UIMessageTranslator()
        stream = b"".join(map(translator.translate, events[: stops[0]])) + translator.end()
        ends = [*stops, len(events)] if stops[-1] < len(events) else stops
        streams = [
            {
                "end": end,
                "decisions": {
                    str(data.id): data.decision == "approve"
                    for event in events[start:end]
                    if isinstance(data := event.decode(), ApprovalDecidedEvent)
                },
            }
            for start, end in pairwise(ends)
        ]
        message = json.loads(msgspec.json.encode(assistant_message(events)))
        logs.append({"number": len(_LOGS), "first": stream.decode(), "streams": streams, "history": message})
        _LOGS.append(events)

    add()
    assert len(logs) > 20
    return logs


_LOGS: list[list[TurnEvent]] = []


async def continue_stream(number: int, end: int, body: str) -> str:
    """The answer to this request, if the log with this number has so many events."""
    posted = posted_decisions(msgspec.json.decode(body, type=ChatRequest))
    assert posted
    translator = ContinuationTranslator(posted)
    return (b"".join(map(translator.translate, _LOGS[number][:end])) + translator.end()).decode()
