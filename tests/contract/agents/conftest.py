"""The stage that each law is played on, once for each adapter."""

from collections.abc import AsyncIterator

import pytest

from tests.contract.agents.stage import ADAPTERS, Adapter, Stage
from tests.fakes.model_server import model_server
from tests.fakes.tool_server import ToolServer

DIRECT = {name: adapter for name, adapter in ADAPTERS.items() if adapter.is_direct}


@pytest.fixture(params=list(ADAPTERS.values()), ids=list(ADAPTERS))
def adapter(request: pytest.FixtureRequest) -> Adapter:
    chosen: Adapter = request.param
    return chosen


@pytest.fixture
async def stage(adapter: Adapter) -> AsyncIterator[Stage]:
    tools = ToolServer()
    async with model_server() as model, adapter(tools, model.base_url) as agent:
        yield Stage(agent, model, tools)


@pytest.fixture(params=list(DIRECT.values()), ids=list(DIRECT))
async def direct_stage(request: pytest.FixtureRequest) -> AsyncIterator[Stage]:
    """For the laws of those who ask the model themselves: they decide how often, and in which words."""
    adapter: Adapter = request.param
    tools = ToolServer()
    async with model_server() as model, adapter(tools, model.base_url) as agent:
        yield Stage(agent, model, tools)
