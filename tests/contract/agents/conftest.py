"""Fixtures: a harness for each agent."""

from collections.abc import AsyncIterator

import pytest

from tests.contract.agents.agent_harness import ADAPTERS, Adapter, AgentHarness
from tests.fakes.model_server import model_server
from tests.fakes.tool_server import ToolServer

DIRECT = {name: adapter for name, adapter in ADAPTERS.items() if adapter.is_direct}


@pytest.fixture(params=list(ADAPTERS.values()), ids=list(ADAPTERS))
def adapter(request: pytest.FixtureRequest) -> Adapter:
    selected: Adapter = request.param
    return selected


@pytest.fixture
async def harness(adapter: Adapter) -> AsyncIterator[AgentHarness]:
    tools = ToolServer()
    async with model_server() as model, adapter(tools, model.base_url) as agent:
        yield AgentHarness(agent, model, tools)


@pytest.fixture(params=list(DIRECT.values()), ids=list(DIRECT))
def direct_adapter(request: pytest.FixtureRequest) -> Adapter:
    selected: Adapter = request.param
    return selected


@pytest.fixture
async def direct_harness(direct_adapter: Adapter) -> AsyncIterator[AgentHarness]:
    """Only agents that send the model's requests themselves, and so decide about retries and their content."""
    tools = ToolServer()
    async with model_server() as model, direct_adapter(tools, model.base_url) as agent:
        yield AgentHarness(agent, model, tools)
