"""The stage that each law is played on, once for each adapter."""

from collections.abc import AsyncIterator

import pytest

from tests.contract.agents.stage import ADAPTERS, Adapter, Stage
from tests.fakes.model_server import model_server
from tests.fakes.tool_server import ToolServer


@pytest.fixture(params=list(ADAPTERS.values()), ids=list(ADAPTERS))
def adapter(request: pytest.FixtureRequest) -> Adapter:
    chosen: Adapter = request.param
    return chosen


@pytest.fixture
async def stage(adapter: Adapter) -> AsyncIterator[Stage]:
    tools = ToolServer()
    async with model_server() as model, adapter(tools, model.base_url) as agent:
        yield Stage(agent, model, tools)
