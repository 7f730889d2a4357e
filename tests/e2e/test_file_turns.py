"""File turns: from one HTTP request to an artifact that survives the process."""

import asyncio
from asyncio import Event
from collections.abc import AsyncIterator
from pathlib import Path

import httpx2
import pytest

from latchkey.testing.processes import free_port
from tests.builders import TASK_GRANTS
from tests.e2e.claude_service import (
    API_KEY,
    MESSAGE,
    PLAN,
    ClaudeService,
    ConcurrentScript,
    InterruptingScript,
    claude_service,
    claude_settings,
    save_artifact_step,
)
from tests.e2e.service_process import Environment
from tests.fakes.model_script import Step, calls, fails, says
from tests.fakes.model_server import ModelServer, model_server
from tests.polling import wait_until
from tests.support.tools import tools_granted_by

PROCESS_LIMIT = 4
PROCESS_LIMIT_OF_USER = PROCESS_LIMIT // 2
TURNS = 8


@pytest.fixture
async def model() -> AsyncIterator[ModelServer]:
    async with model_server() as model:
        yield model


@pytest.fixture
def settings(configured: Environment, model: ModelServer) -> Environment:
    return {**configured, **claude_settings(model), "LATCHKEY_CLAUDE_PROCESSES": str(PROCESS_LIMIT)}


@pytest.fixture
def sqlite_settings(sqlite_url: str, settings: Environment) -> Environment:
    """For tests that do not depend on the database."""
    return {**settings, "LATCHKEY_DATABASE_URL": sqlite_url}


@pytest.mark.parametrize("agent", ["rehearsal", "claude"])
async def test_file_is_listed_and_readable_after_kill(
    home: Path, settings: Environment, token: str, model: ModelServer, agent: str
) -> None:
    model.script += [save_artifact_step(), says("Here is ", "your plan.")]
    variables = {**settings, "LATCHKEY_FILE_AGENT": agent}
    with claude_service(home, variables, token) as service:
        response = await service.file_turn()
        answer = response.json()
        (reference,) = answer["artifacts"]
        read = service.request("GET", f"artifacts/{reference['id']}").json()
        turn = service.request("GET", f"turns/{answer['turn_id']}").json()
        service.replica.process.kill()
    with claude_service(home, variables, token) as again:
        found = again.request("GET", f"artifacts/{reference['id']}").json()
        (listed,) = await again.items(f"artifacts?conversation_id={answer['conversation_id']}")

    assert (response.status_code, answer["agent"], turn["status"]) == (200, agent, "completed")
    assert reference == {**reference, "artifact_type": "generated_file", "title": PLAN["title"], "version": 1}
    assert (read["content_markdown"], read["turn_id"]) == (PLAN["content_markdown"], answer["turn_id"])
    assert [(call["name"], call["result"]) for call in turn["tool_calls"]] == [("save_artifact", reference)]
    assert turn.get("artifacts") == [reference]
    assert found == read
    assert listed["id"] == reference["id"]
    if agent == "claude":
        assert answer["response"] == "Here is your plan."
        assert [[tool[0] for tool in request.tools] for request in model.requests] == [["save_artifact"]] * 2


async def test_file_turn_exposes_no_secret_in_processes_files_or_prompts(
    home: Path, sqlite_settings: Environment, token: str, model: ModelServer
) -> None:
    """Not in command lines, files, the log or prompts. The artifact can already be read during the turn."""
    release = Event()
    model.script += [save_artifact_step(), says("Here ", "it is.").held(release)]
    with claude_service(home, sqlite_settings, token) as service:
        turn = asyncio.create_task(service.file_turn(f"@/etc/passwd /model x\n{MESSAGE}"))
        await wait_until(lambda: has_requests(model, 2))
        (artifact,) = await service.items("artifacts")
        commands, written = service.command_lines, service.file_contents
        release.set()
        answered = await turn
        seen = [
            commands,
            written,
            service.replica.log_text.encode(),
            answered.content,
            *(one.raw for one in model.requests),
        ]
        left = [service.processes, service.workspaces]

    assert artifact["title"] == PLAN["title"]
    assert b"--mcp-config" in commands
    assert b"LATCHKEY_CONTEXT_TOKEN" in written
    for secret in (b"lk_", API_KEY.encode(), sqlite_settings["LATCHKEY_AUTH_SECRET"].encode(), token.encode()):
        assert [text for text in seen if secret in text] == []
    assert not any(b"root:" in request.raw for request in model.requests)
    assert left == [[], []]


FAILURES: dict[str, tuple[list[Step], int, str]] = {
    "a model error": ([fails(400)], 502, "model-unavailable"),
    "too many requests": ([fails(429, retry_after="17")], 503, "rate-limited"),
    "a truncated answer": ([says("Half an ").cut()], 502, "model-bad-response"),
    "too many steps": ([save_artifact_step(title=f"Plan {step}") for step in range(4)], 502, "max-steps"),
}


@pytest.mark.parametrize("failure", FAILURES)
async def test_saved_file_survives_failure_of_its_turn(
    home: Path, sqlite_settings: Environment, token: str, model: ModelServer, failure: str
) -> None:
    steps, status, code = FAILURES[failure]
    model.script += [save_artifact_step(), *steps]
    with claude_service(home, {**sqlite_settings, "LATCHKEY_TURN_MAX_STEPS": "3"}, token) as service:
        failed = await service.file_turn()
        problem = failed.json()
        turn = service.request("GET", f"turns/{problem['turn_id']}").json()
        artifacts = await service.items("artifacts")
        left = [service.processes, service.workspaces]

    assert (failed.status_code, problem["code"], turn["status"]) == (status, code, "failed")
    assert PLAN["title"] in [artifact["title"] for artifact in artifacts]
    assert turn["tool_calls"][0]["result"]["id"] in [artifact["id"] for artifact in artifacts]
    assert left == [[], []]


async def test_unreachable_model_is_502_model_unavailable(home: Path, sqlite_settings: Environment, token: str) -> None:
    away = {**sqlite_settings, "ANTHROPIC_BASE_URL": f"http://127.0.0.1:{free_port()}"}
    with claude_service(home, away, token) as service:
        failed = await service.file_turn()

    assert (failed.status_code, failed.json()["code"]) == (502, "model-unavailable")


async def test_token_revoked_during_turn_fails_with_tools_unavailable(
    home: Path, sqlite_settings: Environment, token: str, model: ModelServer
) -> None:
    with claude_service(home, sqlite_settings, token) as service:
        model.script = InterruptingScript(
            service.revoke_tokens, [save_artifact_step(), save_artifact_step(title="Too late"), says("Never said.")]
        )
        failed = await service.file_turn()
        titles = [artifact["title"] for artifact in await service.items("artifacts")]

    assert (failed.status_code, failed.json()["code"]) == (503, "tools-unavailable")
    assert titles == [PLAN["title"]]


async def test_concurrent_file_turns_of_a_user_share_half_of_the_process_limit(
    home: Path, settings: Environment, token: str, model: ModelServer
) -> None:
    release = Event()
    model.script = ConcurrentScript(model, save_artifact_step().held(release), says("Done."))
    variables = {**settings, "LATCHKEY_TURNS_PER_USER": str(TURNS)}
    with claude_service(home, variables, token) as service:
        turns = [asyncio.create_task(service.file_turn()) for _ in range(TURNS)]
        await wait_until(lambda: has_requests(model, PROCESS_LIMIT_OF_USER))
        at_work = len(service.workspaces)
        release.set()
        answers = [response.json() for response in await asyncio.gather(*turns)]
        kept = await service.items("artifacts")
        left = [service.processes, service.workspaces]

    assert at_work == PROCESS_LIMIT_OF_USER
    assert len({answer["artifacts"][0]["id"] for answer in answers}) == TURNS == len(kept)
    assert left == [[], []]


async def test_restart_after_kill_removes_stale_cli_processes_and_workspaces(
    home: Path, sqlite_settings: Environment, token: str, model: ModelServer
) -> None:
    """The CLI process is killed and its workspace deleted. Another continues the turn; the file is not saved again."""
    model.script += [save_artifact_step(), says("Here ", "it is.").held(Event()), says("Saved.")]
    variables = {**sqlite_settings, "LATCHKEY_TURN_LEASE_S": "3"}
    with claude_service(home, variables, token) as service:
        turn = asyncio.create_task(service.file_turn())
        await wait_until(lambda: has_requests(model, 2))
        service.replica.process.kill()
        await asyncio.wait({turn})
        assert isinstance(turn.exception(), httpx2.TransportError)
        orphans = service.command_lines
    with claude_service(home, variables, token) as again:
        left = [again.processes, again.workspaces]
        (conversation,) = await again.items("conversations")
        await wait_until(lambda: completed(again, conversation["id"]))
        (artifact,) = await again.items("artifacts")
        _, answer = await again.items(f"conversations/{conversation['id']}/messages")

    assert left == [[], []]
    assert b"--mcp-config" in orphans
    assert artifact["title"] == PLAN["title"]
    assert (answer["content"], len(answer["tool_calls"])) == ("Saved.", 1)
    assert len(model.requests[-1].results) == 1


async def test_claude_agent_runs_ordinary_turns(
    home: Path, settings: Environment, token: str, model: ModelServer
) -> None:
    model.script += [calls(("add_task", '{"title": "Buy milk"}'), saying=("One moment. ",)), says("It is on the list.")]
    with claude_service(home, {**settings, "LATCHKEY_AGENT": "claude"}, token) as service:
        response = await asyncio.to_thread(service.request, "POST", "chat", json={"message": "Buy milk"})
        answer = response.json()
        (task,) = await service.items("tasks")

    assert (response.status_code, answer["agent"], answer["usage"]["requests"]) == (200, "claude", 2)
    assert sorted(tool[0] for tool in model.requests[0].tools) == sorted(tools_granted_by(*TASK_GRANTS))
    assert [call["result"] for call in answer["tool_calls"]] == [task]
    assert answer["artifacts"] == []


async def test_cli_reaches_service_despite_allowed_hosts(
    home: Path, sqlite_settings: Environment, token: str, model: ModelServer
) -> None:
    """The CLI connects over loopback, which is always allowed."""
    model.script += [save_artifact_step(), says("Here it is.")]
    named = {"LATCHKEY_ALLOWED_HOSTS": "api.example", "LATCHKEY_PUBLIC_URL": "https://api.example"}
    with claude_service(home, {**sqlite_settings, **named}, token) as service:
        foreign = await service.file_turn(headers={"host": "evil.example"})
        answered = await service.file_turn(headers={"host": "api.example"})

    assert (foreign.status_code, answered.status_code) == (421, 200)
    assert [artifact["title"] for artifact in answered.json()["artifacts"]] == [PLAN["title"]]


async def completed(service: ClaudeService, conversation_id: str) -> bool:
    (turn,) = await service.items(f"conversations/{conversation_id}/turns")
    return bool(turn["status"] == "completed")


async def has_requests(model: ModelServer, times: int = 1) -> bool:
    return len(model.requests) >= times
