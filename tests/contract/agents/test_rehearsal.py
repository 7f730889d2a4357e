"""The rehearsal agent: lines become calls, and nothing else means anything."""

import json
from collections.abc import AsyncIterator

import pytest

from latchkey.domain.errors import MaxSteps, ToolsUnavailable
from latchkey.domain.message import PastTurn
from latchkey.domain.turn import Usage
from latchkey.infrastructure.agents.scripted.agent import RehearsalAgent
from tests.contract.agents.stage import Stage, ToolOutcome
from tests.fakes.model_server import ModelServer
from tests.fakes.tool_server import TOOLS, ToolServer


@pytest.fixture
async def stage() -> AsyncIterator[Stage]:
    tools = ToolServer()
    agent = RehearsalAgent(tools.connect)
    yield Stage(agent, ModelServer(), tools)
    await agent.aclose()


async def say(stage: Stage, message: str) -> ToolOutcome:
    return await stage.play(agent_run=stage.agent_run(message))


async def test_each_line_becomes_a_call_in_order_and_the_answer_has_the_results(stage: Stage) -> None:
    outcome = await say(stage, 'Please:\n/note {"text": "milk"}\nand then\r\n/fail\n/note {"text":"te\u2028a"}  ')

    assert [(call.name, call.arguments) for call in stage.tools.calls] == [
        ("note", {"text": "milk"}),
        ("fail", {}),
        ("note", {"text": "te\u2028a"}),
    ]
    first, *results = outcome.text.split("\n")
    assert first == "[rehearsal] Done."
    assert [line.partition(": ")[0] for line in results] == ["note", "fail", "note"]
    assert json.loads(results[0].partition(": ")[2]) == {"noted": "milk"}
    assert "Not on a Sunday." in results[1]


async def test_one_step_makes_one_call(stage: Stage) -> None:
    outcome = await say(stage, "/note {}\n/note {}\n/note {}")

    assert outcome.usage == Usage(requests=4)
    assert len({call.meta["latchkey/callId"] for call in stage.tools.calls}) == 3


async def test_arguments_go_as_they_are_and_the_answer_shows_what_came_of_it(stage: Stage) -> None:
    outcome = await say(stage, "/note {not json")

    assert stage.tools.calls == []
    assert outcome.text.startswith("[rehearsal] Done.\nnote: ")
    assert "nothing was done" in outcome.text


async def test_a_tool_that_is_not_on_offer_is_answered_with_an_error(stage: Stage) -> None:
    outcome = await say(stage, '/launch {"at": "noon"}\n/note {}')

    assert "launch: Tool 'launch' not found." in outcome.text
    assert [call.name for call in stage.tools.calls] == ["note"]


@pytest.mark.parametrize(
    "message", ["Add a task: milk", "note {}", " /note {}", "see /etc/passwd", "//note {}", "/ {}"]
)
async def test_any_other_message_is_answered_with_an_explanation_and_the_tools(stage: Stage, message: str) -> None:
    outcome = await say(stage, message)

    assert stage.tools.calls == []
    assert outcome.text.startswith("[rehearsal] ")
    assert [f"- {tool.name}: {tool.description}" in outcome.text for tool in TOOLS] == [True, True, True]


async def test_the_answer_comes_in_several_pieces(stage: Stage) -> None:
    assert len((await say(stage, "Hello")).pieces) > 5


async def test_calls_of_earlier_turns_are_not_made_again(stage: Stage) -> None:
    history = [PastTurn('/note {"text": "tea"}', [], "[rehearsal] Done.")]
    await stage.play(agent_run=stage.agent_run('/note {"text": "milk"}', history=history))

    assert [call.arguments for call in stage.tools.calls] == [{"text": "milk"}]


async def test_it_obeys_the_same_limits_as_a_model(stage: Stage) -> None:
    outcome = await stage.play(agent_run=stage.agent_run("/note {}\n" * 5, max_steps=3))

    assert isinstance(outcome.failure, MaxSteps)
    assert len(stage.tools.calls) == 3


async def test_without_tools_to_reach_it_fails_as_any_agent_does(stage: Stage) -> None:
    stage.tools.refuses = True

    assert isinstance((await say(stage, "Hello")).failure, ToolsUnavailable)
