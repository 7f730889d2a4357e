"""An agent's tools are exactly the tools that the turn's context token grants over MCP."""

import asyncio
import json
from asyncio import Event

from latchkey.domain.errors import MaxSteps, ToolsUnavailable
from latchkey.domain.page import TURN_PAGE_BYTES
from latchkey.domain.turn import Usage
from latchkey.infrastructure.agents.toolset import MAX_RESULT_CHARS, MAX_TURN_CHARS
from tests.contract.agents.agent_harness import Adapter, AgentHarness
from tests.fakes.model_script import calls, says
from tests.fakes.tool_server import TOOLS


async def test_model_request_has_exactly_the_listed_tools(harness: AgentHarness) -> None:
    """Name, description and schema, over more than one page of the listing."""
    await harness.run_turn(says("Hello."))

    listed = {tool.name: (tool.name, tool.description, tool.input_schema) for tool in TOOLS}
    assert len(harness.model.requests[0].tools) == len(listed)
    assert {tool[0]: tool for tool in harness.model.requests[0].tools} == listed


async def test_tools_keep_the_order_of_the_listing(direct_harness: AgentHarness) -> None:
    await direct_harness.run_turn(says("Hello."))

    assert [name for name, *_ in direct_harness.model.requests[0].tools] == [tool.name for tool in TOOLS]


async def test_tools_are_listed_again_for_each_turn(harness: AgentHarness) -> None:
    await harness.run_turn(says("Hello."))
    harness.tools.tools = TOOLS[:1]
    await harness.run_turn(says("Hello again."))

    assert [len(request.tools) for request in harness.model.requests] == [3, 1]


async def test_model_request_without_grants_has_no_tools(harness: AgentHarness) -> None:
    harness.tools.tools = ()

    assert (await harness.run_turn(says("Hello."))).text == "Hello."
    assert harness.model.requests[0].tools == []


async def test_context_token_is_sent_to_tools_and_never_to_the_model(harness: AgentHarness, adapter: Adapter) -> None:
    header, key = adapter.key_header
    await harness.run_turn(calls(("note", '{"text":"milk"}')), says("Noted."))

    assert harness.tools.tokens == [harness.secret]
    for request in harness.model.requests:
        assert "lk_" not in request.raw.decode() + str(request.headers)
        assert request.headers[header] == key


async def test_call_arrives_with_arguments_and_call_id_of_the_model(harness: AgentHarness, adapter: Adapter) -> None:
    await harness.run_turn(calls(("note", '{"text":"ünï \\ud83d\\ude80","due":null}')), says("Noted."))

    (call,) = harness.tools.calls
    assert (call.name, call.arguments) == ("note", {"text": "ünï 🚀", "due": None})
    (requested,) = [line for line in harness.model.requests[1].conversation if line[0] == "call"]
    assert call.meta[adapter.call_id] == requested[1]


async def test_tool_result_reaches_the_model_unchanged(harness: AgentHarness) -> None:
    await harness.run_turn(calls(("note", '{"text":"milk"}')), says("Noted."))

    assert [json.loads(result) for result in harness.model.requests[1].results] == [{"noted": "milk"}]


async def test_tool_result_of_the_largest_page_reaches_the_model_unchanged(harness: AgentHarness) -> None:
    """The Claude CLI replaces a result that is too long for it by the name of a file that the model cannot read."""
    text = "x" * (TURN_PAGE_BYTES + 200)
    await harness.run_turn(calls(("note", json.dumps({"text": text}))), says("Noted."))

    assert [json.loads(result) for result in harness.model.requests[1].results] == [{"noted": text}]


async def test_long_tool_result_is_cut_and_the_model_is_told(direct_harness: AgentHarness) -> None:
    await direct_harness.run_turn(calls(("note", json.dumps({"text": "x" * 100_000}))), says("Noted."))
    (result,) = direct_harness.model.requests[1].results

    assert result.startswith('{"noted": "xxx')
    assert len(result) < MAX_RESULT_CHARS + 300
    assert "characters of this result are left out" in result[-300:]


async def test_long_tool_results_of_a_turn_are_cut_together(direct_harness: AgentHarness) -> None:
    """Later results are shorter, and none is empty."""
    long_call = calls(("note", json.dumps({"text": "x" * 100_000})))
    await direct_harness.run_turn(*[long_call] * 7, says("Noted."))
    results = direct_harness.model.requests[7].results

    assert sum(map(len, results)) < MAX_TURN_CHARS + 7 * 800
    assert all(result.startswith('{"noted": "xxx') and "left out" in result for result in results)


async def test_calls_of_one_answer_are_made_in_order_and_never_concurrent(
    harness: AgentHarness, adapter: Adapter
) -> None:
    requested = [("note", json.dumps({"text": str(number)})) for number in range(4)]
    outcome = await harness.run_turn(calls(*requested), says("All noted."))

    assert outcome.text == "All noted."
    assert [call.arguments["text"] for call in harness.tools.calls] == ["0", "1", "2", "3"]
    assert len({call.meta[adapter.call_id] for call in harness.tools.calls}) == 4
    assert harness.tools.max_active_calls == 1


async def test_tool_error_is_sent_to_the_model(harness: AgentHarness) -> None:
    outcome = await harness.run_turn(calls(("fail", "{}")), calls(("note", '{"text":"milk"}')), says("Mended."))

    assert outcome.text == "Mended."
    assert json.loads(harness.model.requests[1].results[0]) == {"code": "invalid", "detail": "Not on a Sunday."}
    assert [call.name for call in harness.tools.calls] == ["fail", "note"]


async def test_arguments_that_are_not_json_are_reported_to_the_model_and_have_no_effect(harness: AgentHarness) -> None:
    """Whether the call is made is up to the agent: see `test_unreadable_arguments_are_recorded_…`."""
    outcome = await harness.run_turn(calls(("note", '{"text": "mi')), says("I give up."))

    assert outcome.text == "I give up."
    assert len(harness.model.requests[1].results) == 1
    assert [call.arguments for call in harness.tools.calls if "text" in call.arguments] == []


async def test_unknown_tool_is_reported_to_the_model(harness: AgentHarness) -> None:
    outcome = await harness.run_turn(calls(("drop_database", "{}")), says("There is no such tool."))

    assert outcome.text == "There is no such tool."
    assert "drop_database" in harness.model.requests[1].results[0]
    assert harness.tools.calls == []


async def test_unknown_tools_are_reported_to_the_model_each_time(harness: AgentHarness) -> None:
    outcome = await harness.run_turn(*[calls(("drop_database", "{}"))] * 4, says("There is no such tool."))

    assert outcome.text == "There is no such tool."
    assert len(harness.model.requests[4].results) == 4


async def test_max_steps_limits_a_model_that_calls_tools_endlessly(harness: AgentHarness) -> None:
    script = [calls(("note", '{"text":"again"}'))] * 5
    outcome = await harness.run_turn(*script, agent_run=harness.agent_run(max_steps=3))

    assert isinstance(outcome.failure, MaxSteps)
    assert len(harness.model.requests) == 3
    assert outcome.usage == Usage(3, 30, 15)


async def test_rejected_context_token_fails_the_turn_before_any_model_request(harness: AgentHarness) -> None:
    harness.tools.refuses = True
    outcome = await harness.run_turn(says("Never sent."))

    assert isinstance(outcome.failure, ToolsUnavailable)
    assert harness.model.requests == []
    assert "lk_" not in outcome.failure.detail


async def test_call_with_unknown_effect_fails_the_turn(harness: AgentHarness) -> None:
    """The tool may have done its work: the call is not repeated, and no further text of the model is published."""
    outcome = await harness.run_turn(calls(("crash", "{}")), says("Never sent."))

    assert isinstance(outcome.failure, ToolsUnavailable)
    assert outcome.text == ""
    assert outcome.usage == Usage(1, 10, 5)
    assert len(harness.tools.calls) == 1
    assert "internal-detail-that-must-not-leak" not in outcome.failure.detail


async def test_call_with_unknown_effect_is_not_reported_to_the_model(direct_harness: AgentHarness) -> None:
    await direct_harness.run_turn(calls(("crash", "{}")), says("Never sent."))

    assert len(direct_harness.model.requests) == 1


async def test_disconnect_of_tools_during_a_call_fails_the_turn(harness: AgentHarness) -> None:
    harness.tools.held_until = Event()
    turn = asyncio.ensure_future(
        harness.run_turn(calls(("note", '{"text":"milk"}'), saying=("Well,",)), says("Never sent."))
    )
    await harness.tools.reached.wait()
    harness.tools.dropped.set()
    outcome = await turn

    assert isinstance(outcome.failure, ToolsUnavailable)
    assert outcome.text == "Well,"
    assert len(harness.tools.calls) == 1


async def test_connection_to_tools_is_closed_with_the_turn(harness: AgentHarness) -> None:
    await harness.run_turn(calls(("note", '{"text":"milk"}')), says("Noted."))
    await harness.run_turn(calls(("crash", "{}")))

    assert len(harness.tools.tokens) == 2
    assert harness.tools.open_connections == 0
