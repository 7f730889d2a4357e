"""The log line of each turn, and the outcomes of its tool calls in the log."""

import json
import threading
from asyncio import Event, create_task, wait
from collections.abc import AsyncGenerator, Iterator
from datetime import timedelta
from typing import Any
from uuid import uuid4

import pytest

from latchkey.application.dispatcher import Dispatcher
from latchkey.application.turns.executor import TurnLimits
from latchkey.application.turns.runner import TurnRunner
from latchkey.bootstrap.agents import LazyAgent
from latchkey.domain.agent import AgentEvent, AgentRun, TextDelta
from latchkey.domain.concurrency import FairSlots
from latchkey.domain.credentials import Owner, UserId
from latchkey.domain.message import NewMessage
from latchkey.infrastructure.database.event_bus import LocalEventBus
from latchkey.infrastructure.database.sql.engine import create_engine
from latchkey.infrastructure.database.unit_of_work import SqlUnitsOfWork
from latchkey.infrastructure.telemetry.logging import log_call
from tests.builders import LIMITS
from tests.fakes.model_script import calls, fails, says
from tests.fakes.model_server import ModelServer
from tests.support.captured_log import CapturedLog, captured_log
from tests.support.service import ApiUser, Service
from tests.turns import profiles_of

pytestmark = pytest.mark.asyncio(loop_scope="session")

TOOLS = {"add_task", "complete_task", "list_tasks", "record_failure"}
MILK = calls(("add_task", '{"title": "Buy milk"}'))


@pytest.fixture
def log() -> Iterator[CapturedLog]:
    with captured_log() as log:
        yield log


@pytest.fixture
def modelled(model_service: Service) -> ApiUser:
    """A user of the service with the scripted model."""
    return model_service.user()


def turn_line(log: CapturedLog) -> dict[str, Any]:
    (line,) = log.lines("turn")
    return line


async def test_turn_log_of_completed_turn(ada: ApiUser, log: CapturedLog) -> None:
    """With its tool calls; each failed call is logged once, with its code."""
    messages = [
        ("add_task", {"title": "Milk"}),
        ("complete_task", {"task_id": str(uuid4())}),
        ("add_task", {"title": ""}),
    ]
    message = "\n".join(f"/{name} {json.dumps(arguments)}" for name, arguments in messages)
    response = await ada.post("chat", json={"message": message}, headers={"x-request-id": "r-1"})
    answer, line = response.json(), turn_line(log)
    outcomes = [(one["use_case"], one["outcome"]) for one in log.lines("use_case_call") if one["use_case"] in TOOLS]

    assert outcomes == [("add_task", "ok"), ("complete_task", "not-found"), ("add_task", "invalid")]
    duration = line.pop("duration_ms")
    assert 0 < line.pop("first_text_ms") <= duration
    assert 0 < line.pop("db_ms") < duration
    assert 0 <= line.pop("loaded_ms") < duration
    assert line.pop("timestamp")
    durations = line.pop("model_ms")
    assert len(durations) == 4
    assert all(duration > 0 for duration in durations)
    assert line.pop("tools_ms") == sum(call["duration_ms"] for call in answer["tool_calls"])
    assert line == {
        "event": "turn",
        "level": "info",
        "turn_id": answer["turn_id"],
        "conversation_id": answer["conversation_id"],
        "user_id": ada.user_id,
        "request_id": "r-1",
        "agent": "rehearsal",
        "assistant": "default",
        "model": "rehearsal",
        "attempt": 1,
        "status": "completed",
        "code": None,
        "detail": None,
        "cause": None,
        "stored": True,
        "steps": 4,
        "tools": {"add_task": 2, "complete_task": 1},
        "tool_errors": 2,
        "retries": 0,
        "upstream_status": 200,
        "waited_ms": 0,
        "cached_tokens": 0,
        "input_tokens": answer["usage"]["input_tokens"],
        "output_tokens": answer["usage"]["output_tokens"],
    }


async def test_turn_log_of_failed_turn_has_its_cause(modelled: ApiUser, model: ModelServer, log: CapturedLog) -> None:
    model.script += [MILK, fails(503, retry_after_ms="1"), fails(500, x_should_retry="false")]
    problem = (await modelled.post("chat", json={"message": "Buy milk"})).json()
    line = turn_line(log)

    assert (line["status"], line["code"], line["level"]) == ("failed", "model-unavailable", "warning")
    assert (line["turn_id"], line["detail"]) == (problem["turn_id"], problem["detail"])
    assert line["model"] == (await modelled.get(f"turns/{problem['turn_id']}")).json()["model"] == "fake"
    assert line["cause"].startswith("ModelServerError: status 500: fake: ")
    assert "ModelServerError" not in problem["detail"]
    assert (line["tools"], line["tool_errors"], line["first_text_ms"]) == ({"add_task": 1}, 0, None)
    assert (line["retries"], line["upstream_status"], line["steps"], len(line["model_ms"])) == (1, 500, 1, 2)


async def test_turn_log_of_cancelled_turn(modelled: ApiUser, model: ModelServer, gate: Event, log: CapturedLog) -> None:
    model.script += [says("Half an ").held(gate)]
    chat = create_task(modelled.post("chat", json={"message": "Buy milk"}))
    await model.wait_for_requests()
    (conversation,) = await modelled.list_items("conversations")
    (turn,) = await modelled.list_items(f"conversations/{conversation['id']}/turns")
    await modelled.post(f"turns/{turn['id']}/cancel")
    await chat
    line = turn_line(log)

    assert (line["turn_id"], line["status"], line["code"]) == (turn["id"], "cancelled", "turn-cancelled")
    assert (line["level"], line["stored"]) == ("info", True)


class EchoAgent:
    """An agent that answers with the message."""

    name = "echo"
    model = None

    async def run(self, agent_run: AgentRun) -> AsyncGenerator[AgentEvent, None]:
        yield TextDelta(agent_run.message)

    async def aclose(self) -> None:
        """There is nothing to release."""


def load_slowly() -> EchoAgent:
    threading.Event().wait(0.03)
    return EchoAgent()


async def test_turn_log_has_times_of_waiting_loading_and_database(sqlite_url: str, log: CapturedLog) -> None:
    engine, owner = create_engine(sqlite_url), Owner(UserId("ada"))
    event_bus, slots = LocalEventBus(), FairSlots[UserId](1, 1)
    profiles = profiles_of(agent=LazyAgent("echo", load_slowly), slots=slots)
    dispatcher = Dispatcher(SqlUnitsOfWork(engine, event_bus), log_call)
    runner = TurnRunner(dispatcher, event_bus, profiles, TurnLimits(LIMITS, timedelta(minutes=1), 3))
    async with slots.slot(UserId("grace"), 1):
        turn = await runner.start(owner, NewMessage("Hello"))
        assert turn.task
        await wait([turn.task], timeout=0.03)
    await runner.wait(owner, turn)
    await engine.dispose()
    line = turn_line(log)

    assert 20 < line["waited_ms"] < line["duration_ms"]
    assert 20 < line["loaded_ms"] < line["duration_ms"]
    assert 0 < line["db_ms"] < line["duration_ms"]
    assert (line["model_ms"], line["retries"], line["upstream_status"]) == ([], 0, None)


class UnstorableAgent:
    """An agent whose answer no database can store."""

    name = "unstorable"
    model = None

    async def run(self, _: AgentRun) -> AsyncGenerator[AgentEvent, None]:
        yield TextDelta("Half of a ")
        yield TextDelta("smile \ud83d")

    async def aclose(self) -> None:
        """There is nothing to release."""


async def test_turn_whose_end_cannot_be_stored_ends_with_less(database_url: str, log: CapturedLog) -> None:
    """It fails at once, and does not stay running until its lease expires."""
    engine, owner = create_engine(database_url), Owner(UserId("ada"))
    event_bus = LocalEventBus()
    profiles = profiles_of(agent=UnstorableAgent())
    dispatcher = Dispatcher(SqlUnitsOfWork(engine, event_bus), log_call)
    runner = TurnRunner(dispatcher, event_bus, profiles, TurnLimits(LIMITS, timedelta(minutes=1), 3))
    result = await runner.wait(owner, await runner.start(owner, NewMessage("Hello")))
    await engine.dispose()

    assert (result.turn.status, result.failure and result.failure.code) == ("failed", "internal")
    assert (turn_line(log)["stored"], turn_line(log)["code"]) == (True, "internal")


class BrokenAgent:
    """An agent with a bug."""

    name = "broken"
    model = None

    async def run(self, agent_run: AgentRun) -> AsyncGenerator[AgentEvent, None]:
        yield TextDelta(agent_run.message)
        raise LookupError("no such thing")

    async def aclose(self) -> None:
        """There is nothing to release."""


async def test_turn_log_of_internal_error_has_its_traceback(sqlite_url: str, log: CapturedLog) -> None:
    engine, owner = create_engine(sqlite_url), Owner(UserId("ada"))
    event_bus = LocalEventBus()
    profiles = profiles_of(agent=BrokenAgent())
    limits = TurnLimits(LIMITS, timedelta(minutes=1), 3)
    dispatcher = Dispatcher(SqlUnitsOfWork(engine, event_bus), log_call)
    runner = TurnRunner(dispatcher, event_bus, profiles, limits)
    result = await runner.wait(owner, await runner.start(owner, NewMessage("Hello")))
    await engine.dispose()
    line = turn_line(log)

    assert result.turn.error is not None
    assert (line["code"], line["level"], line["detail"]) == ("internal", "error", result.turn.error.detail)
    assert "LookupError: no such thing" in line["exception"]
