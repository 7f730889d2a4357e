"""The rehearsal agent: lines of the form `/TOOL {json}` become tool calls."""

import json
from collections.abc import AsyncIterator

import pytest

from latchkey.domain.errors import MaxSteps, ToolsUnavailable
from latchkey.domain.message import PastTurn
from latchkey.domain.turn import Usage
from latchkey.infrastructure.agents.scripted.agent import RehearsalAgent
from tests.contract.agents.agent_harness import AgentHarness, RecordedTurn
from tests.fakes.model_server import ModelServer
from tests.fakes.tool_server import TOOLS, ToolServer


@pytest.fixture
async def harness() -> AsyncIterator[AgentHarness]:
    tools = ToolServer()
    agent = RehearsalAgent(tools.connect)
    yield AgentHarness(agent, ModelServer(), tools)
    await agent.aclose()


async def send_message(harness: AgentHarness, message: str) -> RecordedTurn:
    return await harness.run_turn(agent_run=harness.agent_run(message))


async def test_lines_become_tool_calls_in_order_and_answer_has_the_results(harness: AgentHarness) -> None:
    outcome = await send_message(
        harness, 'Please:\n/note {"text": "milk"}\nand then\r\n/fail\n/note {"text":"te\u2028a"}  '
    )

    assert [(call.name, call.arguments) for call in harness.tools.calls] == [
        ("note", {"text": "milk"}),
        ("fail", {}),
        ("note", {"text": "te\u2028a"}),
    ]
    first, *results = outcome.text.split("\n")
    assert first == "[rehearsal] Done."
    assert [line.partition(": ")[0] for line in results] == ["note", "fail", "note"]
    assert json.loads(results[0].partition(": ")[2]) == {"noted": "milk"}
    assert "Not on a Sunday." in results[1]


async def test_each_step_makes_one_call(harness: AgentHarness) -> None:
    outcome = await send_message(harness, "/note {}\n/note {}\n/note {}")

    assert outcome.usage == Usage(requests=4)
    assert len({call.meta["latchkey/callId"] for call in harness.tools.calls}) == 3


async def test_arguments_that_are_not_json_are_reported_in_the_answer(harness: AgentHarness) -> None:
    outcome = await send_message(harness, "/note {not json")

    assert [call.arguments for call in harness.tools.calls] == [{"unreadable_arguments": "{not json"}]
    assert outcome.text.startswith("[rehearsal] Done.\nnote: ")
    assert "nothing was done" in outcome.text


async def test_unknown_tool_is_reported_in_the_answer(harness: AgentHarness) -> None:
    outcome = await send_message(harness, '/launch {"at": "noon"}\n/note {}')

    assert "launch: Tool 'launch' not found." in outcome.text
    assert [call.name for call in harness.tools.calls] == ["note"]


@pytest.mark.parametrize(
    "message", ["Add a task: milk", "note {}", " /note {}", "see /etc/passwd", "//note {}", "/ {}"]
)
async def test_other_message_is_answered_with_usage_and_tools(harness: AgentHarness, message: str) -> None:
    outcome = await send_message(harness, message)

    assert harness.tools.calls == []
    assert outcome.text.startswith("[rehearsal] ")
    assert [f"- {tool.name}: {tool.description}" in outcome.text for tool in TOOLS] == [True, True, True]


async def test_answer_is_streamed_in_several_deltas(harness: AgentHarness) -> None:
    assert len((await send_message(harness, "Hello")).deltas) > 5


async def test_tool_calls_of_earlier_turns_are_not_repeated(harness: AgentHarness) -> None:
    history = [PastTurn('/note {"text": "tea"}', [], "[rehearsal] Done.")]
    await harness.run_turn(agent_run=harness.agent_run('/note {"text": "milk"}', history=history))

    assert [call.arguments for call in harness.tools.calls] == [{"text": "milk"}]


async def test_max_steps_limits_the_rehearsal_agent(harness: AgentHarness) -> None:
    outcome = await harness.run_turn(agent_run=harness.agent_run("/note {}\n" * 5, max_steps=3))

    assert isinstance(outcome.failure, MaxSteps)
    assert len(harness.tools.calls) == 3


async def test_unreachable_tools_fail_the_turn(harness: AgentHarness) -> None:
    harness.tools.refuses = True

    assert isinstance((await send_message(harness, "Hello")).failure, ToolsUnavailable)
