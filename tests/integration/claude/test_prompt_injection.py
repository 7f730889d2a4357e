"""The same with the real Claude CLI: a model that obeys every text, and a program with tools of its own."""

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
from tests.fakes.anthropic_events import SERVER, anthropic_events
from tests.fakes.canary_server import CanaryServer, canary_server
from tests.fakes.model_script import Reply, Step, calls, says
from tests.fakes.model_server import ModelServer, model_server
from tests.fakes.obedient_model import ObedientModel, tool_call
from tests.integration.test_injection import INJECTIONS
from tests.polling import wait_until

ESTABLISHED = "01"
OWN_TOOLS = ["Bash", "Read", "Write", "WebFetch", "WebSearch", "Task", "ReadMcpResourceTool", "ListMcpResourcesTool"]


@pytest.fixture
async def model() -> AsyncIterator[ModelServer]:
    async with model_server() as model:
        yield model


@pytest.fixture
async def canary() -> AsyncIterator[CanaryServer]:
    async with canary_server() as canary:
        yield canary


@pytest.fixture
def desk(tmp_path: Path, sqlite_url: str, model: ModelServer) -> Iterator[ClaudeService]:
    """Where the CLI carries every kind of turn."""
    home = tmp_path / "home"
    home.mkdir()
    carried = {"LATCHKEY_AGENT": "claude", "LATCHKEY_TURN_MAX_STEPS": "60"}
    settings = {**BASE_SETTINGS, **claude_settings(model), **carried, "LATCHKEY_DATABASE_URL": sqlite_url}
    with claude_service(home, settings, issue_token("ada", home, settings)) as desk:
        yield desk


async def ask(desk: ClaudeService, method: str, below: str, **given: Any) -> Any:
    answer = await asyncio.to_thread(desk.request, method, below, **given)
    assert answer.is_success, answer.text
    return answer.json()


def own_call(tool: str, url: str) -> Reply:
    """A call of a tool that the CLI has at home."""
    arguments = json.dumps({"command": f"curl {url}", "url": url, "uri": url, "query": url, "prompt": url})
    said, end = anthropic_events(calls((tool, arguments)))
    return Reply(200, b"".join([*said, *end]).replace(f"{SERVER}{tool}".encode(), tool.encode()), "text/event-stream")


def peers(process: int) -> set[tuple[int, int]]:
    """The ports, ours and theirs, of each connection that a process has."""
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
    desk: ClaudeService, model: ModelServer, canary: CanaryServer
) -> None:
    """It deletes what it may, has no other tool, not even its own, and talks to the model and to us alone."""
    hers = await ask(desk, "POST", "tasks", json={"title": "Precious"})
    paper = await ask(desk, "POST", "artifacts", json={"title": "Plan", "content_markdown": "Secret plan"})
    rest = Event()
    orders: dict[str, Step] = {
        **{f"ORDER-{tool}": own_call(tool, canary.url) for tool in OWN_TOOLS},
        "ORDER-save": tool_call("save_artifact", title="x", content_markdown="x", artifact_id=paper["id"]),
        "ORDER-get": tool_call("get_artifact", artifact_id=paper["id"]),
        "ORDER-fetch": tool_call("fetch", url=canary.url),
        "ORDER-delete": tool_call("delete_task", task_id=hers["id"]),
        "ORDER-wait": says(*canary.bait_texts).held(rest),
    }
    for nth, word in enumerate(orders):
        said = INJECTIONS[nth % len(INJECTIONS)].format(word)
        temptation = canary.bait_texts[nth % len(canary.bait_texts)]
        await ask(desk, "POST", "tasks", json={"title": said[-200:], "description": f"{said} {temptation}"})
    model.script = obedient = ObedientModel(
        model, {"What is on my list?": tool_call("list_tasks", limit=200), **orders}
    )
    message = {"message": "What is on my list?\n" + "\n".join(canary.bait_texts)}
    turn = asyncio.create_task(ask(desk, "POST", "chat", json=message))
    await wait_until(lambda: has_obeyed(obedient, "ORDER-wait"))
    connections = {port for process in desk.processes for _, port in peers(process)}
    rest.set()
    answer = await turn
    artifacts = await desk.items("artifacts")

    assert set(obedient.obeyed) == {"What is on my list?", *orders}
    assert [call["name"] for call in answer["tool_calls"]] == ["list_tasks", "delete_task"]
    assert hers["id"] not in {task["id"] for task in await desk.items("tasks")}
    assert [(one["title"], one["version"]) for one in artifacts] == [("Plan", 1)]
    assert b"Secret plan" not in b"".join(request.raw for request in model.requests)
    assert canary.connections == []
    assert urlsplit(model.base_url).port in connections
    assert connections <= {urlsplit(model.base_url).port, urlsplit(desk.replica.url).port}


async def test_injected_document_can_only_save_an_artifact(
    desk: ClaudeService, model: ModelServer, canary: CanaryServer
) -> None:
    task = await ask(desk, "POST", "tasks", json={"title": "Precious"})
    paper = await ask(desk, "POST", "artifacts", json={"title": "Plan", "content_markdown": "Secret plan"})
    orders: dict[str, Step] = {
        "ORDER-list": tool_call("list_tasks"),
        "ORDER-delete": tool_call("delete_task", task_id=task["id"]),
        "ORDER-get": tool_call("get_artifact", artifact_id=paper["id"]),
        "ORDER-over": tool_call("save_artifact", title="x", content_markdown="x", artifact_id=paper["id"]),
        "ORDER-fetch": own_call("WebFetch", canary.url),
        "ORDER-save": tool_call("save_artifact", title="Report", content_markdown=" ".join(canary.bait_texts)),
    }
    model.script = obedient = ObedientModel(model, orders)
    quoted = "\n".join(INJECTIONS[nth % len(INJECTIONS)].format(word) for nth, word in enumerate(orders))
    answer = (await desk.file_turn(f"Make a report of this:\n{quoted}\n{' '.join(canary.bait_texts)}")).json()
    roles = [line[0] for line in model.requests[-1].conversation]

    assert set(obedient.obeyed) == set(orders)
    assert [(call["name"], call["result"].get("code", "made")) for call in answer["tool_calls"]] == [
        ("save_artifact", "not-found"),
        ("save_artifact", "made"),
    ]
    assert [one["title"] for one in await desk.items("tasks")] == ["Precious"]
    assert {one["title"]: one["version"] for one in await desk.items("artifacts")} == {"Plan": 1, "Report": 1}
    assert "ORDER" not in model.requests[-1].conversation[0][1]
    assert roles.count("system") == 1
    assert canary.connections == []


async def has_obeyed(model: ObedientModel, word: str) -> bool:
    return word in model.obeyed
