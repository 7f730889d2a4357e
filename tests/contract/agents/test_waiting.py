"""A call that waits for the user ends the run after its step, without a further text."""

import pytest

from latchkey.domain.agent import AgentRun, TextDelta, TurnWaiting
from latchkey.domain.tool_call import ToolRequest
from tests.contract.agents.agent_harness import Adapter, AgentHarness
from tests.fakes.model_script import Answer, calls, says
from tests.fakes.tool_server import ASK, TOOLS

NOTE = ("note", '{"text":"milk"}')
QUESTION = ("ask", "{}")


async def run_until_it_waits(harness: AgentHarness, *script: Answer, agent_run: AgentRun | None = None) -> list[str]:
    """Run a turn, which must wait, and return the texts and the names of the requested tools."""
    harness.tools.tools = (*TOOLS, ASK)
    harness.model.script.extend(script)
    shown: list[str] = []

    async def run() -> None:
        async for event in harness.agent.run(agent_run or harness.agent_run()):
            if isinstance(event, TextDelta):
                shown.append(event.text)
            elif isinstance(event, ToolRequest):
                shown.append(event.name)

    with pytest.raises(TurnWaiting):
        await run()
    return shown


async def test_run_ends_after_the_step_of_a_call_that_waits(harness: AgentHarness, adapter: Adapter) -> None:
    """The other calls of the step are made. A program with requests of its own may have sent the next one already."""
    step = calls(QUESTION, NOTE, saying=("I ask. ",))
    events = await run_until_it_waits(harness, step, says("Never shown."))

    assert events == ["I ask. ", "ask", "note"]
    assert [call.name for call in harness.tools.calls] == ["ask", "note"]
    assert len(harness.model.requests) == 1 or not adapter.is_direct


async def test_run_waits_even_if_the_step_was_the_last_one_allowed(direct_harness: AgentHarness) -> None:
    run = direct_harness.agent_run(max_steps=1)

    assert await run_until_it_waits(direct_harness, calls(QUESTION), agent_run=run) == ["ask"]


async def test_tool_error_of_another_kind_does_not_wait(harness: AgentHarness) -> None:
    outcome = await harness.run_turn(calls(("fail", "{}")), says("Refused."))

    assert outcome.text == "Refused."
