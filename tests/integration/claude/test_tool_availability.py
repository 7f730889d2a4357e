"""A turn fails before any model request unless the CLI has exactly the tools that its token grants."""

import asyncio
from asyncio import Event
from pathlib import Path

import pytest

from latchkey.domain.credentials import TokenSecret, UserId
from latchkey.domain.errors import ToolsUnavailable
from latchkey.infrastructure.agents.claude.agent import ClaudeAgent
from tests.fakes.model_script import calls, says
from tests.fakes.tool_endpoint import tool_endpoint
from tests.fakes.tool_server import TOOLS, ToolServer
from tests.integration.claude.claude_harness import ClaudeHarness, cli_for


async def test_turn_fails_if_endpoint_rejects_the_token(harness: ClaudeHarness) -> None:
    harness.endpoint.refuses = True
    outcome = await harness.run_turn(says("Never sent."))

    assert isinstance(outcome.failure, ToolsUnavailable)
    assert outcome.events == []
    assert harness.model.requests == []


@pytest.mark.parametrize("tools", [TOOLS[:2], ()], ids=["fewer", "none"])
async def test_turn_fails_if_endpoint_has_fewer_tools(harness: ClaudeHarness, tools: tuple[object, ...]) -> None:
    await expect_failure(harness, ToolServer(tools=TOOLS), ToolServer(tools=tools))  # type: ignore[arg-type]


async def test_turn_fails_if_endpoint_has_more_tools(harness: ClaudeHarness) -> None:
    await expect_failure(harness, ToolServer(tools=TOOLS[:1]), ToolServer(tools=TOOLS))


async def test_turn_without_tools_needs_no_token(harness: ClaudeHarness) -> None:
    """The request for a title has no tools. It is sent after the token of the turn has been revoked."""
    harness.endpoint.refuses = True
    agent = ClaudeAgent(
        ToolServer(tools=()).connect,
        cli_for(harness.model),
        mcp_url=harness.endpoint.url,
        workspace_parent=harness.folder,
    )
    harness.agent = agent
    outcome = await harness.run_turn(says("Milk and eggs"))
    await agent.aclose()

    assert (outcome.failure, outcome.text) == (None, "Milk and eggs")
    assert harness.endpoint.authorizations == set()


async def expect_failure(harness: ClaudeHarness, granted: ToolServer, available: ToolServer) -> None:
    async with tool_endpoint(available) as endpoint:
        agent = ClaudeAgent(
            granted.connect, cli_for(harness.model), mcp_url=endpoint.url, workspace_parent=harness.folder
        )
        harness.agent = agent
        outcome = await harness.run_turn(says("Never sent."))
        await agent.aclose()

    assert isinstance(outcome.failure, ToolsUnavailable)
    assert harness.model.requests == []


async def test_turn_fails_if_endpoint_is_unreachable(harness: ClaudeHarness, folder: Path) -> None:
    agent = ClaudeAgent(
        harness.tools.connect, cli_for(harness.model), mcp_url="http://127.0.0.1:9/mcp", workspace_parent=folder
    )
    harness.agent = agent
    outcome = await harness.run_turn(says("Never sent."))
    await agent.aclose()

    assert isinstance(outcome.failure, ToolsUnavailable)
    assert harness.model.requests == []


async def test_turn_fails_if_its_token_is_revoked_between_calls(harness: ClaudeHarness) -> None:
    revoked = Event()
    harness.model.script += [
        calls(("note", '{"text":"milk"}'), saying=("Well,",)),
        calls(("note", '{"text":"tea"}'), saying=("and",)).held(revoked),
        says("Never sent."),
    ]

    async def revoke_between_the_calls() -> None:
        async for _ in harness.agent.run(harness.agent_run()):
            if harness.tools.calls:
                harness.endpoint.refuses = True
                revoked.set()

    with pytest.raises(ToolsUnavailable):
        await revoke_between_the_calls()

    assert [call.arguments for call in harness.tools.calls] == [{"text": "milk"}]


async def test_concurrent_turns_use_their_own_tokens(harness: ClaudeHarness) -> None:
    secrets = [TokenSecret.mint(UserId(name)) for name in ("ada", "bob", "eve")]

    async def run_turn(secret: TokenSecret) -> None:
        harness.secret = secret
        agent_run = harness.agent_run()
        async for _ in harness.agent.run(agent_run):
            pass

    harness.model.script += [says("Hello.")] * 3
    await asyncio.gather(*map(run_turn, secrets))

    assert harness.endpoint.authorizations == {f"Bearer {secret.text}" for secret in secrets}
