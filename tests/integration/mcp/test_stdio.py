"""`latchkey mcp`: the real program, and a client that starts it."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from mcp import Client, MCPError, StdioServerParameters

from latchkey.application.context_tokens import revoke_context_token
from latchkey.domain.credentials import TokenSecret
from tests.builders import TASK_GRANTS
from tests.integration.mcp.jsonrpc import PROTOCOLS, call, message, notification
from tests.integration.mcp.mcp_service import ME, McpService
from tests.support.tools import tools_granted_by

LATCHKEY = Path(sys.executable).with_name("latchkey")


def environment(database_url: str, token: str) -> dict[str, str]:
    return {
        "PATH": os.environ["PATH"],
        "LATCHKEY_DATABASE_URL": database_url,
        "LATCHKEY_CONTEXT_TOKEN": token,
    }


def program(database_url: str, token: TokenSecret) -> StdioServerParameters:
    return StdioServerParameters(command=str(LATCHKEY), args=["mcp"], env=environment(database_url, token.text))


def run_latchkey(env: dict[str, str], said: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [LATCHKEY, "mcp"], env=env, input=said, capture_output=True, text=True, timeout=60, check=False
    )


@pytest.mark.parametrize("mode", ["2026-07-28", "auto", "legacy"])
async def test_a_client_uses_the_tools_of_its_token(service: McpService, database_url: str, mode: str) -> None:
    secret = await service.secret()
    async with Client(program(database_url, secret), mode=mode) as client:
        names = [tool.name for tool in (await client.list_tools()).tools]
        added = await client.call_tool("add_task", {"title": "Buy milk"})
        listed = await client.call_tool("list_tasks")

    assert names == tools_granted_by(*TASK_GRANTS)
    assert listed.structured_content["items"] == [added.structured_content]


async def test_a_token_that_is_revoked_meanwhile_opens_nothing_more(service: McpService, database_url: str) -> None:
    minted = await service.mint()
    async with Client(program(database_url, minted.secret), mode="legacy") as client:
        await client.call_tool("list_tasks")
        await service.dispatcher.call(ME, revoke_context_token, minted.token.id)
        with pytest.raises(MCPError, match="unauthenticated"):
            await client.call_tool("add_task", {"title": "Buy milk"})


async def test_it_does_not_start_with_a_token_that_opens_nothing(service: McpService, database_url: str) -> None:
    minted = await service.mint()
    await service.dispatcher.call(ME, revoke_context_token, minted.token.id)
    done = run_latchkey(environment(database_url, minted.secret.text), "")

    assert (done.returncode, done.stdout) == (1, "")
    assert "token" in done.stderr
    assert minted.secret.text not in done.stderr


async def test_what_is_piped_in_is_answered(service: McpService, database_url: str) -> None:
    """Also the last call, right behind which the input ends; and nothing else is on standard output."""
    token = (await service.secret()).text
    hello = {"protocolVersion": PROTOCOLS["older"], "capabilities": {}, "clientInfo": {"name": "pipe", "version": "1"}}
    said = [
        message("older", "initialize", hello),
        notification("notifications/initialized"),
        {**call("older", "add_task", {"title": "Buy milk"}), "id": 2},
    ]
    done = run_latchkey(environment(database_url, token), "".join(f"{json.dumps(one)}\n" for one in said))
    answers = [json.loads(line) for line in done.stdout.splitlines()]

    assert [answer["id"] for answer in answers] == [1, 2]
    assert answers[1]["result"]["structuredContent"]["title"] == "Buy milk"


async def test_only_a_request_in_a_session_is_a_call(service: McpService, database_url: str) -> None:
    """Neither a notification, which nobody would be answered, nor one that comes before the session has begun."""
    secret = await service.secret()
    hello = {"protocolVersion": PROTOCOLS["older"], "capabilities": {}, "clientInfo": {"name": "pipe", "version": "1"}}
    add = call("older", "add_task", {"title": "Buy milk"})
    said = [
        {**add, "id": 1},
        {**message("older", "initialize", hello), "id": 2},
        notification("notifications/initialized"),
        {name: value for name, value in add.items() if name != "id"},
        {**call("older", "list_tasks", {}), "id": 3},
    ]
    done = run_latchkey(environment(database_url, secret.text), "".join(f"{json.dumps(one)}\n" for one in said))
    answers = {answer["id"]: answer for answer in map(json.loads, done.stdout.splitlines())}

    assert "error" in answers[1]
    assert answers[3]["result"]["structuredContent"]["items"] == []
