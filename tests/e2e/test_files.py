"""A turn that makes a file, from one request over HTTP to a document that outlives the process."""

import asyncio
from asyncio import Event
from collections.abc import AsyncIterator
from pathlib import Path

import httpx2
import pytest

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
from tests.process_supervision import free_port
from tests.support.tools import tools_granted_by

PLACES = 2
CROWD = 8


@pytest.fixture
async def model() -> AsyncIterator[ModelServer]:
    async with model_server() as model:
        yield model


@pytest.fixture
def settings(configured: Environment, model: ModelServer) -> Environment:
    return {**configured, **claude_settings(model), "LATCHKEY_CLAUDE_PROCESSES": str(PLACES)}


@pytest.fixture
def desk_settings(sqlite_url: str, settings: Environment) -> Environment:
    """For what does not depend on the kind of database."""
    return {**settings, "LATCHKEY_DATABASE_URL": sqlite_url}


@pytest.mark.parametrize("agent", ["rehearsal", "claude"])
async def test_a_file_is_listed_read_and_still_there_after_a_kill(
    home: Path, settings: Environment, token: str, model: ModelServer, agent: str
) -> None:
    model.script += [save_artifact_step(), says("Here is ", "your plan.")]
    given = {**settings, "LATCHKEY_FILE_AGENT": agent}
    with claude_service(home, given, token) as desk:
        response = await desk.file_turn()
        answer = response.json()
        (reference,) = answer["artifacts"]
        read = desk.request("GET", f"artifacts/{reference['id']}").json()
        turn = desk.request("GET", f"turns/{answer['turn_id']}").json()
        desk.replica.process.kill()
    with claude_service(home, given, token) as again:
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


async def test_while_a_file_is_made_nobody_sees_the_token_or_the_key(
    home: Path, desk_settings: Environment, token: str, model: ModelServer
) -> None:
    """Not in arguments, not in files, not in the log, and the model neither; and the file can be read already."""
    rest = Event()
    model.script += [save_artifact_step(), says("Here ", "it is.").held(rest)]
    with claude_service(home, desk_settings, token) as desk:
        turn = asyncio.create_task(desk.file_turn(f"@/etc/passwd /model x\n{MESSAGE}"))
        await wait_until(lambda: asked(model, 2))
        (artifact,) = await desk.items("artifacts")
        commands, written = desk.command_lines, desk.file_contents
        rest.set()
        answered = await turn
        seen = [
            commands,
            written,
            desk.replica.log_text.encode(),
            answered.content,
            *(one.raw for one in model.requests),
        ]
        left = [desk.processes, desk.workspaces]

    assert artifact["title"] == PLAN["title"]
    assert b"--mcp-config" in commands
    assert b"LATCHKEY_CONTEXT_TOKEN" in written
    for secret in (b"lk_", API_KEY.encode(), desk_settings["LATCHKEY_AUTH_SECRET"].encode(), token.encode()):
        assert [text for text in seen if secret in text] == []
    assert not any(b"root:" in request.raw for request in model.requests)
    assert left == [[], []]


FAILURES: dict[str, tuple[list[Step], int, str]] = {
    "an error of the model's": ([fails(400)], 502, "model-unavailable"),
    "too many requests": ([fails(429, retry_after="17")], 503, "rate-limited"),
    "half an answer": ([says("Half an ").cut()], 502, "model-bad-response"),
    "steps without end": ([save_artifact_step(title=f"Plan {step}") for step in range(4)], 502, "max-steps"),
}


@pytest.mark.parametrize("failure", FAILURES)
async def test_a_file_stays_that_was_saved_before_its_turn_failed(
    home: Path, desk_settings: Environment, token: str, model: ModelServer, failure: str
) -> None:
    steps, status, code = FAILURES[failure]
    model.script += [save_artifact_step(), *steps]
    with claude_service(home, {**desk_settings, "LATCHKEY_TURN_MAX_STEPS": "3"}, token) as desk:
        failed = await desk.file_turn()
        problem = failed.json()
        turn = desk.request("GET", f"turns/{problem['turn_id']}").json()
        artifacts = await desk.items("artifacts")
        left = [desk.processes, desk.workspaces]

    assert (failed.status_code, problem["code"], turn["status"]) == (status, code, "failed")
    assert PLAN["title"] in [artifact["title"] for artifact in artifacts]
    assert turn["tool_calls"][0]["result"]["id"] in [artifact["id"] for artifact in artifacts]
    assert left == [[], []]


async def test_a_model_that_nobody_serves_is_unavailable(home: Path, desk_settings: Environment, token: str) -> None:
    away = {**desk_settings, "ANTHROPIC_BASE_URL": f"http://127.0.0.1:{free_port()}"}
    with claude_service(home, away, token) as desk:
        failed = await desk.file_turn()

    assert (failed.status_code, failed.json()["code"]) == (502, "model-unavailable")


async def test_a_turn_whose_token_is_taken_away_while_the_model_thinks_has_no_tools(
    home: Path, desk_settings: Environment, token: str, model: ModelServer
) -> None:
    with claude_service(home, desk_settings, token) as desk:
        model.script = InterruptingScript(
            desk.revoke_tokens, [save_artifact_step(), save_artifact_step(title="Too late"), says("Never said.")]
        )
        failed = await desk.file_turn()
        titles = [artifact["title"] for artifact in await desk.items("artifacts")]

    assert (failed.status_code, failed.json()["code"]) == (503, "tools-unavailable")
    assert titles == [PLAN["title"]]


async def test_eight_files_at_once_share_the_places_and_all_are_made(
    home: Path, settings: Environment, token: str, model: ModelServer
) -> None:
    rest = Event()
    model.script = ConcurrentScript(model, save_artifact_step().held(rest), says("Done."))
    given = {**settings, "LATCHKEY_TURNS_PER_USER": str(CROWD)}
    with claude_service(home, given, token) as desk:
        turns = [asyncio.create_task(desk.file_turn()) for _ in range(CROWD)]
        await wait_until(lambda: asked(model, PLACES))
        at_work = len(desk.workspaces)
        rest.set()
        answers = [response.json() for response in await asyncio.gather(*turns)]
        kept = await desk.items("artifacts")
        left = [desk.processes, desk.workspaces]

    assert at_work == PLACES
    assert len({answer["artifacts"][0]["id"] for answer in answers}) == CROWD == len(kept)
    assert left == [[], []]


async def test_a_service_that_comes_back_sweeps_up_after_one_that_was_killed(
    home: Path, desk_settings: Environment, token: str, model: ModelServer
) -> None:
    """The process ends, its folder goes, the turn is interrupted, and what it had saved stays."""
    model.script += [save_artifact_step(), says("Here ", "it is.").held(Event()), save_artifact_step(), says("Again.")]
    given = {**desk_settings, "LATCHKEY_TURN_LEASE_S": "1"}
    with claude_service(home, given, token) as desk:
        turn = asyncio.create_task(desk.file_turn())
        await wait_until(lambda: asked(model, 2))
        desk.replica.process.kill()
        await asyncio.wait({turn})
        assert isinstance(turn.exception(), httpx2.TransportError)
        orphans = desk.command_lines
    with claude_service(home, given, token) as again:
        left = [again.processes, again.workspaces]
        (conversation,) = await again.items("conversations")
        await wait_until(lambda: interrupted(again, conversation["id"]))
        (artifact,) = await again.items("artifacts")
        answer = (await again.file_turn()).json()

    assert left == [[], []]
    assert b"--mcp-config" in orphans
    assert artifact["title"] == PLAN["title"]
    assert answer["response"] == "Again."


async def test_the_cli_carries_ordinary_turns_where_it_is_asked_to(
    home: Path, settings: Environment, token: str, model: ModelServer
) -> None:
    model.script += [calls(("add_task", '{"title": "Buy milk"}'), saying=("One moment. ",)), says("It is on the list.")]
    with claude_service(home, {**settings, "LATCHKEY_AGENT": "claude"}, token) as desk:
        response = await asyncio.to_thread(desk.request, "POST", "chat", json={"message": "Buy milk"})
        answer = response.json()
        (task,) = await desk.items("tasks")

    assert (response.status_code, answer["agent"], answer["usage"]["requests"]) == (200, "claude", 2)
    assert sorted(tool[0] for tool in model.requests[0].tools) == sorted(tools_granted_by(*TASK_GRANTS))
    assert [call["result"] for call in answer["tool_calls"]] == [task]
    assert answer["artifacts"] == []


async def test_a_public_name_does_not_stand_in_the_way_of_the_cli(
    home: Path, desk_settings: Environment, token: str, model: ModelServer
) -> None:
    """It comes over loopback, whatever the service is called outside."""
    model.script += [save_artifact_step(), says("Here it is.")]
    named = {"LATCHKEY_ALLOWED_HOSTS": "api.example", "LATCHKEY_PUBLIC_URL": "https://api.example"}
    with claude_service(home, {**desk_settings, **named}, token) as desk:
        foreign = await desk.file_turn(headers={"host": "evil.example"})
        answered = await desk.file_turn(headers={"host": "api.example"})

    assert (foreign.status_code, answered.status_code) == (421, 200)
    assert [artifact["title"] for artifact in answered.json()["artifacts"]] == [PLAN["title"]]


async def interrupted(desk: ClaudeService, conversation_id: str) -> bool:
    (turn,) = await desk.items(f"conversations/{conversation_id}/turns")
    return bool(turn["status"] == "interrupted")


async def asked(model: ModelServer, times: int = 1) -> bool:
    return len(model.requests) >= times
