"""`latchkey mcp`: the real command, started by a client."""

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


def run_latchkey(env: dict[str, str], stdin: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [LATCHKEY, "mcp"], env=env, input=stdin, capture_output=True, text=True, timeout=60, check=False
    )


@pytest.mark.parametrize("mode", ["2026-07-28", "auto", "legacy"])
async def test_stdio_client_uses_the_tools_of_its_token(service: McpService, database_url: str, mode: str) -> None:
    secret = await service.secret()
    async with Client(program(database_url, secret), mode=mode) as client:
        names = [tool.name for tool in (await client.list_tools()).tools]
        added = await client.call_tool("add_task", {"title": "Buy milk"})
        listed = await client.call_tool("list_tasks")

    assert names == tools_granted_by(*TASK_GRANTS)
    assert listed.structured_content["items"] == [added.structured_content]


async def test_stdio_revoke_during_session_refuses_the_next_call(service: McpService, database_url: str) -> None:
    minted = await service.mint()
    async with Client(program(database_url, minted.secret), mode="legacy") as client:
        await client.call_tool("list_tasks")
        await service.dispatcher.call(ME, revoke_context_token, minted.token.id)
        with pytest.raises(MCPError, match="unauthenticated"):
            await client.call_tool("add_task", {"title": "Buy milk"})


async def test_stdio_with_revoked_token_does_not_start(service: McpService, database_url: str) -> None:
    minted = await service.mint()
    await service.dispatcher.call(ME, revoke_context_token, minted.token.id)
    process = run_latchkey(environment(database_url, minted.secret.text), "")

    assert (process.returncode, process.stdout) == (1, "")
    assert "token" in process.stderr
    assert minted.secret.text not in process.stderr


async def test_stdio_piped_requests_are_all_answered(service: McpService, database_url: str) -> None:
    """Including the last one, after which the input ends. Nothing else is written to standard output."""
    token = (await service.secret()).text
    initialize = {
        "protocolVersion": PROTOCOLS["older"],
        "capabilities": {},
        "clientInfo": {"name": "pipe", "version": "1"},
    }
    messages = [
        message("older", "initialize", initialize),
        notification("notifications/initialized"),
        {**call("older", "add_task", {"title": "Buy milk"}), "id": 2},
    ]
    process = run_latchkey(
        environment(database_url, token), "".join(f"{json.dumps(message)}\n" for message in messages)
    )
    responses = [json.loads(line) for line in process.stdout.splitlines()]

    assert [response["id"] for response in responses] == [1, 2]
    assert responses[1]["result"]["structuredContent"]["title"] == "Buy milk"


async def test_stdio_notification_or_request_before_initialize_is_no_call(
    service: McpService, database_url: str
) -> None:
    """Neither has an effect."""
    secret = await service.secret()
    initialize = {
        "protocolVersion": PROTOCOLS["older"],
        "capabilities": {},
        "clientInfo": {"name": "pipe", "version": "1"},
    }
    add = call("older", "add_task", {"title": "Buy milk"})
    messages = [
        {**add, "id": 1},
        {**message("older", "initialize", initialize), "id": 2},
        notification("notifications/initialized"),
        {name: value for name, value in add.items() if name != "id"},
        {**call("older", "list_tasks", {}), "id": 3},
    ]
    process = run_latchkey(
        environment(database_url, secret.text), "".join(f"{json.dumps(message)}\n" for message in messages)
    )
    responses = {response["id"]: response for response in map(json.loads, process.stdout.splitlines())}

    assert "error" in responses[1]
    assert responses[3]["result"]["structuredContent"]["items"] == []
