"""Approval over MCP in whole processes: asked, answered and repeated at different replicas, with `kill -9` between."""

import json
from pathlib import Path
from typing import Any

import httpx2
import pytest

from tests.e2e.service_process import Environment, Replica, running_service
from tests.integration.mcp.approvals.calls import APPROVE, CAPABILITIES, FORMS
from tests.integration.mcp.jsonrpc import headers, message

CALLS: dict[str, dict[str, Any]] = {"publish": {"text": "Hello"}, "order": {"sku": "bell"}}


@pytest.fixture
def environment(configured: Environment, tmp_path: Path) -> Environment:
    """The first approved call kills its process before its effect is committed, or after it has started elsewhere."""
    return {**configured, "LATCHKEY_APP": "tests.apps.guarded:app", "GUARDED_KILL": str(tmp_path / "killed")}


def call(replica: Replica, token: str, tool: str, state: str | None = None) -> Any:
    members: dict[str, Any] = {"name": tool, "arguments": CALLS[tool], "_meta": {CAPABILITIES: FORMS}}
    if state is not None:
        members |= {"requestState": state, "inputResponses": {"approval": APPROVE}}
    request = message("current", "tools/call", members)
    fields = headers("current", request, None)
    return replica.request("POST", "/mcp", token, json=request, headers=fields).json()["result"]


def titles(replica: Replica, token: str) -> list[str]:
    tasks = replica.request("GET", "/api/me/tasks", token).json()["items"]
    return [task["title"] for task in tasks]


def test_question_survives_kills_before_and_after_the_decision(
    home: Path, environment: Environment, token: str
) -> None:
    """The decision is not used up though nothing ran: the client repeats its answer, and the call is made once."""
    with running_service(home=home, environment=environment) as replica:
        state = call(replica, token, "publish")["requestState"]
        replica.process.kill()
    with running_service(home=home, environment=environment) as replica:
        with pytest.raises(httpx2.TransportError):
            call(replica, token, "publish", state)
        replica.process.join()
    with running_service(home=home, environment=environment) as replica:
        assert titles(replica, token) == []
        first, repeated = [call(replica, token, "publish", state) for _ in range(2)]
        after = titles(replica, token)

    assert first["structuredContent"] == repeated["structuredContent"]
    assert after == ["Hello"]


def test_killed_call_outside_transaction_is_not_made_again(home: Path, environment: Environment, token: str) -> None:
    """It may have had its effect: the repeated answer says that no result is recorded."""
    with running_service(home=home, environment=environment) as replica:
        state = call(replica, token, "order")["requestState"]
        with pytest.raises(httpx2.TransportError):
            call(replica, token, "order", state)
        replica.process.join()
    with running_service(home=home, environment=environment) as replica:
        repeated = call(replica, token, "order", state)

    assert json.loads(repeated["content"][0]["text"])["detail"].startswith("no result recorded")


def test_any_replica_takes_the_decision(home: Path, configured: Environment, token: str) -> None:
    """No replica remembers a question: all of it is in the database."""
    environment = {**configured, "LATCHKEY_APP": "tests.apps.guarded:app"}
    with (
        running_service(home=home, environment=environment) as first,
        running_service(home=home, environment=environment) as second,
    ):
        state = call(first, token, "publish")["requestState"]
        published = call(second, token, "publish", state)
        repeated = call(first, token, "publish", state)

        assert published["structuredContent"] == repeated["structuredContent"]
        assert titles(first, token) == ["Hello"]
