"""Turns that fail or are interrupted: the response, and what stays stored."""

import asyncio
import secrets
from asyncio import Event
from collections.abc import AsyncIterator

import mcp
import pytest
import pytest_asyncio

from latchkey.domain.credentials import TokenSecret, UserId
from tests.fakes.model_script import Step, calls, fails, says
from tests.fakes.model_server import ModelServer
from tests.support.service import ApiUser, Service, model_variables, run_service, settings_for

pytestmark = pytest.mark.asyncio(loop_scope="session")

MILK = calls(("add_task", '{"title": "Buy milk"}'))
LIST = calls(("list_tasks", "{}"))
SHORT_LIMITS = {"LATCHKEY_TURN_DEADLINE_S": "2", "LATCHKEY_TURN_MAX_STEPS": "3"}

FAILURES: dict[str, tuple[list[Step], int, str]] = {
    "rate limit": ([fails(429, retry_after="17", x_should_retry="false")], 503, "rate-limited"),
    "server error": ([fails(500, x_should_retry="false")], 502, "model-unavailable"),
    "invalid API key": ([fails(401)], 502, "model-unavailable"),
    "incomplete stream": ([says("Half an ").cut()], 502, "model-bad-response"),
    "empty answer": ([says()], 502, "model-bad-response"),
    "too many steps": ([LIST, LIST, LIST], 502, "max-steps"),
    "timeout": ([says("Wait").held(Event())], 504, "deadline"),
}


@pytest_asyncio.fixture(scope="module", loop_scope="session", params=["openai", "pydantic_ai"])
async def service_with_short_limits(
    request: pytest.FixtureRequest, shared_database_url: str, shared_model: ModelServer
) -> AsyncIterator[Service]:
    variables = {**model_variables(shared_model), **SHORT_LIMITS, "LATCHKEY_AGENT": request.param}
    async with run_service(settings_for(shared_database_url, **variables)) as service:
        yield service


@pytest.fixture
def ada(service_with_short_limits: Service) -> ApiUser:
    return service_with_short_limits.user()


@pytest.fixture
def minted(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The random parts of the tokens that are minted during the test, in order."""
    random_parts: list[str] = []
    reserve = secrets.token_urlsafe

    def note(size: int) -> str:
        random_parts.append(reserve(size))
        return random_parts[-1]

    monkeypatch.setattr(secrets, "token_urlsafe", note)
    return random_parts


@pytest.mark.parametrize(("steps", "status", "code"), FAILURES.values(), ids=FAILURES)
async def test_chat_failure_returns_its_code_and_keeps_completed_tool_calls(
    ada: ApiUser, model: ModelServer, steps: list[Step], status: int, code: str
) -> None:
    model.script += [MILK, *steps]
    failed = await ada.post("chat", json={"message": "Buy milk"})
    problem = failed.json()
    turn = (await ada.get(f"turns/{problem['turn_id']}")).json()
    messages = await ada.list_items(f"conversations/{problem['conversation_id']}/messages")
    (task,) = await ada.list_items("tasks")

    assert (failed.status_code, problem["status"], problem["code"]) == (status, status, code)
    waits = {"retry_after": 17} if code == "rate-limited" else {}
    assert (turn["status"], turn["error"]) == ("failed", {"code": code, "detail": problem["detail"], **waits})
    assert turn["tool_calls"][0]["result"] == task
    assert turn["finished_at"] > turn["started_at"]
    assert turn["usage"]["requests"] >= 1
    assert turn["model"] == "fake"
    assert [message["content"] for message in messages] == ["Buy milk"]
    assert "retry-after" not in failed.headers or (code, failed.headers["retry-after"]) == ("rate-limited", "17")


async def test_chat_retry_after_a_failure_shows_the_model_the_earlier_tool_calls(
    ada: ApiUser, model: ModelServer
) -> None:
    model.script += [MILK, says("Half an ").cut(), says("It is on the list already.")]
    failed = (await ada.post("chat", json={"message": "Buy milk"})).json()
    await ada.chat("And?", conversation_id=failed["conversation_id"])
    roles = [line[0] for line in model.requests[2].conversation]

    assert roles[:4] == ["system", "user", "call", "result"]
    assert roles[-1] == "user"


async def test_chat_revoked_turn_token_stops_the_tool_calls(ada: ApiUser, model: ModelServer) -> None:
    release = Event()
    model.script += [MILK.held(release), says("Never said.")]
    turn = asyncio.create_task(ada.post("chat", json={"message": "Buy milk"}))
    await model.wait_for_requests()
    (token,) = await ada.list_items("context-tokens")
    await ada.delete(f"context-tokens/{token['id']}")
    release.set()
    failed = await turn

    assert (failed.status_code, failed.json()["code"]) == (503, "tools-unavailable")
    assert await ada.list_items("tasks") == []


@pytest.mark.parametrize("last", [says("Done."), fails(401)], ids=["completed", "failed"])
async def test_turn_token_is_valid_only_while_the_turn_runs(
    service_with_short_limits: Service, ada: ApiUser, model: ModelServer, minted: list[str], last: Step
) -> None:
    release = Event()
    model.script += [calls(("list_tasks", "{}")).held(release), last]
    turn = asyncio.create_task(ada.post("chat", json={"message": "hello"}))
    await model.wait_for_requests()
    token = token_of(ada, minted)
    async with service_with_short_limits.mcp_client(token) as client:
        during = [tool.name for tool in (await client.list_tools()).tools]
        release.set()
        await turn
        with pytest.raises(mcp.MCPError):
            await client.call_tool("add_task", {"title": "Too late"})

    assert len(during) == 5
    assert await ada.list_items("tasks") == []


async def test_chat_shutdown_of_a_service_with_one_attempt_stores_the_turn_as_interrupted(
    service_with_short_limits: Service, shared_database_url: str, model: ModelServer, minted: list[str]
) -> None:
    variables = {**model_variables(model), "LATCHKEY_TURN_ATTEMPTS": "1"}
    async with run_service(settings_for(shared_database_url, **variables)) as stopping:
        model.script += [MILK, says("Half an ").held(Event())]
        waiting = stopping.user()
        turn = asyncio.create_task(waiting.post("chat", json={"message": "Buy milk"}))
        await model.wait_for_requests(2)
    interrupted = await turn
    problem = interrupted.json()
    ada = service_with_short_limits.user(waiting.user_id)
    stored = (await ada.get(f"turns/{problem['turn_id']}")).json()
    async with service_with_short_limits.mcp_client(ada.token) as client:
        listed = await client.call_tool("list_tasks", {})

    assert (interrupted.status_code, problem["code"]) == (503, "turn-interrupted")
    assert (stored["status"], stored["error"], len(stored["tool_calls"])) == ("interrupted", None, 1)
    assert len(listed.structured_content["items"]) == 1
    assert (
        await service_with_short_limits.client.post("/mcp", headers=bearer(token_of(ada, minted)), json={})
    ).status_code == 401
    model.script += [says("Where were we?")]
    assert (await ada.chat("Hello?", conversation_id=problem["conversation_id"]))["message"]["seq"] == 3


def token_of(user: ApiUser, minted: list[str]) -> str:
    """The token that was minted last: that of the user's turn."""
    named = TokenSecret.mint(UserId(user.user_id)).text
    return named.replace(minted.pop(), minted[-1])


def bearer(token: str) -> dict[str, str]:
    return {"authorization": f"Bearer {token}", "content-type": "application/json"}
