"""The token of a turn allows exactly the tools of its assistant, over MCP as well: lists, calls and resources."""

from collections.abc import AsyncIterator
from typing import Any
from uuid import uuid4

import pytest
from mcp import Client, MCPError

from latchkey.application.artifacts import add_artifact
from latchkey.application.turns.start import StartedTurn, start_turn
from latchkey.bootstrap.core import Core, create_core
from latchkey.domain.artifact import NewArtifact
from latchkey.domain.credentials import ARTIFACTS_READ, ARTIFACTS_WRITE, Owner, UserId
from latchkey.domain.message import NewMessage
from latchkey.interfaces.mcp.principal import connect
from tests.builders import LIMITS
from tests.support.service import settings_for
from tests.turns import profiles_of

UNKNOWN_TOOL = -32602


@pytest.fixture
async def core(shared_database_url: str) -> AsyncIterator[Core]:
    core = create_core(settings_for(shared_database_url))
    yield core
    await core.engine.dispose()


async def turn_with(core: Core, owner: Owner, *tools: str) -> StartedTurn:
    """Start a turn whose token has both grants on artifacts, and is limited to these tools."""
    profiles = profiles_of([ARTIFACTS_READ, ARTIFACTS_WRITE], tools=tools)
    started = await core.dispatcher.call(owner, start_turn, NewMessage("Hello"), profiles, LIMITS)
    assert isinstance(started, StartedTurn)
    return started


async def listed(client: Client) -> dict[str, list[Any]]:
    return {
        "tools": [tool.name for tool in (await client.list_tools()).tools],
        "resources": [str(resource.uri) for resource in (await client.list_resources()).resources],
        "templates": [each.uri_template for each in (await client.list_resource_templates()).resource_templates],
    }


@pytest.mark.parametrize("is_scope_known", [True, False])
async def test_tool_outside_the_list_of_a_token_is_like_an_unknown_one(core: Core, *, is_scope_known: bool) -> None:
    owner = Owner(UserId(f"ada-{uuid4().hex}"))
    started = await turn_with(core, owner, "get_artifact")
    new = NewArtifact("Plan", "# Plan", conversation_id=started.turn.conversation_id)
    artifact = await core.dispatcher.call(owner, add_artifact, new)
    uri = f"latchkey://artifacts/{artifact.id}"
    async with connect(core.mcp_server, started.secret, started.scope if is_scope_known else None) as client:
        found = await listed(client)
        read = await client.call_tool("get_artifact", {"artifact_id": str(artifact.id)})
        text: Any = (await client.read_resource(uri)).contents[0]
        refusals = []
        for name in ("list_artifacts", "save_artifact", "add_task", "nothing"):
            with pytest.raises(MCPError) as refused:
                await client.call_tool(name, {})
            refusals.append((refused.value.error.code, refused.value.error.message))

    assert found == {"tools": ["get_artifact"], "resources": [], "templates": ["latchkey://artifacts/{id}"]}
    assert (read.is_error, text.text) == (False, "# Plan")
    assert refusals == [
        (UNKNOWN_TOOL, f"Unknown tool: {name}") for name in ("list_artifacts", "save_artifact", "add_task", "nothing")
    ]


async def test_resource_without_its_tool_does_not_exist(core: Core) -> None:
    owner = Owner(UserId(f"ada-{uuid4().hex}"))
    started = await turn_with(core, owner, "list_artifacts")
    new = NewArtifact("Plan", "# Plan", conversation_id=started.turn.conversation_id)
    uri = f"latchkey://artifacts/{(await core.dispatcher.call(owner, add_artifact, new)).id}"
    async with connect(core.mcp_server, started.secret) as client:
        found = await listed(client)
        with pytest.raises(MCPError, match=r"Unknown resource|not found"):
            await client.read_resource(uri)

    assert found == {"tools": ["list_artifacts"], "resources": [uri], "templates": []}
