"""Prompt injection with the real Claude CLI, which has built-in tools: its model obeys every text."""

import asyncio
import json
from asyncio import Event
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from tests.e2e.claude_service import ClaudeService, claude_service, claude_settings
from tests.e2e.service_process import BASE_SETTINGS, issue_token
from tests.fakes.anthropic_events import built_in_tool_call
from tests.fakes.canary_server import CanaryServer, canary_server
from tests.fakes.model_script import Reply, Step, says
from tests.fakes.model_server import ModelServer, model_server
from tests.fakes.obedient_model import ObedientModel, tool_call
from tests.integration.test_injection import INJECTIONS
from tests.polling import wait_until

ESTABLISHED = "01"
BUILT_IN_TOOLS = (
    *("Bash", "Read", "Write", "WebFetch", "WebSearch", "Task"),
    *("ReadMcpResourceTool", "ListMcpResourcesTool"),
)


@pytest.fixture
async def model() -> AsyncIterator[ModelServer]:
    async with model_server() as model:
        yield model


@pytest.fixture
async def canary() -> AsyncIterator[CanaryServer]:
    async with canary_server() as canary:
        yield canary


@pytest.fixture
def service(tmp_path: Path, sqlite_url: str, model: ModelServer) -> Iterator[ClaudeService]:
    """A service that runs every kind of turn with the CLI."""
    home = tmp_path / "home"
    home.mkdir()
    agent_settings = {"LATCHKEY_AGENT": "claude", "LATCHKEY_TURN_MAX_STEPS": "60"}
    settings = {**BASE_SETTINGS, **claude_settings(model), **agent_settings, "LATCHKEY_DATABASE_URL": sqlite_url}
    with claude_service(home, settings, issue_token("ada", home, settings)) as service:
        yield service


def built_in_call(tool: str, url: str) -> Reply:
    arguments = {"command": f"curl {url}", "url": url, "uri": url, "query": url, "prompt": url}
    return built_in_tool_call(tool, json.dumps(arguments))


async def send_request(service: ClaudeService, method: str, path: str, **options: Any) -> Any:
    response = await asyncio.to_thread(service.request, method, path, **options)
    assert response.is_success, response.text
    return response.json()


def peers(process: int) -> set[tuple[int, int]]:
    """The local and the remote port of each connection of a process."""
    descriptors = [path.readlink().name for path in Path(f"/proc/{process}/fd").iterdir() if path.is_symlink()]
    rows = [
        row.split()
        for table in ("tcp", "tcp6")
        for row in Path(f"/proc/{process}/net/{table}").read_text().splitlines()[1:]
    ]
    return {
        (int(row[1].rpartition(":")[2], 16), int(row[2].rpartition(":")[2], 16))
        for row in rows
        if row[3] == ESTABLISHED and f"socket:[{row[9]}]" in descriptors
    }


async def test_injected_tasks_can_only_use_granted_tools(
    service: ClaudeService, model: ModelServer, canary: CanaryServer
) -> None:
    """The CLI uses the granted tools, has no others, and connects only to the model and to our service."""
    task = await send_request(service, "POST", "tasks", json={"title": "Precious"})
    artifact = await send_request(
        service, "POST", "artifacts", json={"title": "Plan", "content_markdown": "Secret plan"}
    )
    release = Event()
    orders: dict[str, Step] = {
        **{f"ORDER-{tool}": built_in_call(tool, canary.url) for tool in BUILT_IN_TOOLS},
        "ORDER-save": tool_call("save_artifact", title="x", content_markdown="x", artifact_id=artifact["id"]),
        "ORDER-get": tool_call("get_artifact", artifact_id=artifact["id"]),
        "ORDER-fetch": tool_call("fetch", url=canary.url),
        "ORDER-delete": tool_call("delete_task", task_id=task["id"]),
        "ORDER-wait": says(*canary.bait_texts).held(release),
    }
    for number, word in enumerate(orders):
        injection = INJECTIONS[number % len(INJECTIONS)].format(word)
        bait = canary.bait_texts[number % len(canary.bait_texts)]
        await send_request(
            service, "POST", "tasks", json={"title": injection[-200:], "description": f"{injection} {bait}"}
        )
    model.script = obedient = ObedientModel(
        model, {"What is on my list?": tool_call("list_tasks", limit=200), **orders}
    )
    message = {"message": "What is on my list?\n" + "\n".join(canary.bait_texts)}
    turn = asyncio.create_task(send_request(service, "POST", "chat", json=message))
    await wait_until(lambda: has_obeyed(obedient, "ORDER-wait"))
    connections = {port for process in service.processes for _, port in peers(process)}
    release.set()
    answer = await turn
    artifacts = await service.items("artifacts")

    assert set(obedient.obeyed) == {"What is on my list?", *orders}
    assert [call["name"] for call in answer["tool_calls"]] == ["list_tasks", "delete_task"]
    assert task["id"] not in {task["id"] for task in await service.items("tasks")}
    assert [(artifact["title"], artifact["version"]) for artifact in artifacts] == [("Plan", 1)]
    assert b"Secret plan" not in b"".join(request.raw for request in model.requests)
    assert canary.connections == []
    assert urlsplit(model.base_url).port in connections
    assert connections <= {urlsplit(model.base_url).port, urlsplit(service.replica.url).port}


async def test_injected_document_can_only_save_an_artifact(
    service: ClaudeService, model: ModelServer, canary: CanaryServer
) -> None:
    task = await send_request(service, "POST", "tasks", json={"title": "Precious"})
    artifact = await send_request(
        service, "POST", "artifacts", json={"title": "Plan", "content_markdown": "Secret plan"}
    )
    orders: dict[str, Step] = {
        "ORDER-list": tool_call("list_tasks"),
        "ORDER-delete": tool_call("delete_task", task_id=task["id"]),
        "ORDER-get": tool_call("get_artifact", artifact_id=artifact["id"]),
        "ORDER-over": tool_call("save_artifact", title="x", content_markdown="x", artifact_id=artifact["id"]),
        "ORDER-fetch": built_in_call("WebFetch", canary.url),
        "ORDER-save": tool_call("save_artifact", title="Report", content_markdown=" ".join(canary.bait_texts)),
    }
    model.script = obedient = ObedientModel(model, orders)
    quoted = "\n".join(INJECTIONS[number % len(INJECTIONS)].format(word) for number, word in enumerate(orders))
    answer = (await service.file_turn(f"Make a report of this:\n{quoted}\n{' '.join(canary.bait_texts)}")).json()
    roles = [line[0] for line in model.requests[-1].conversation]

    assert set(obedient.obeyed) == set(orders)
    assert [(call["name"], call["result"].get("code", "made")) for call in answer["tool_calls"]] == [
        ("save_artifact", "not-found"),
        ("save_artifact", "made"),
    ]
    assert [task["title"] for task in await service.items("tasks")] == ["Precious"]
    assert {artifact["title"]: artifact["version"] for artifact in await service.items("artifacts")} == {
        "Plan": 1,
        "Report": 1,
    }
    assert "ORDER" not in model.requests[-1].conversation[0][1]
    assert roles.count("system") == 1
    assert canary.connections == []


async def has_obeyed(model: ObedientModel, word: str) -> bool:
    return word in model.obeyed
