"""An agent's tools are what the turn's token opens over MCP: no more, no fewer, and under no other key."""

import asyncio
import json
from asyncio import Event

from latchkey.domain.errors import MaxSteps, ToolsUnavailable
from latchkey.domain.turn import Usage
from tests.contract.agents.stage import Adapter, Stage
from tests.fakes.model_script import calls, says
from tests.fakes.tool_server import TOOLS


async def test_the_model_is_offered_exactly_the_tools_that_are_listed(stage: Stage) -> None:
    """Name, description and schema, over more than one page of the listing."""
    await stage.play(says("Hello."))

    listed = {tool.name: (tool.name, tool.description, tool.input_schema) for tool in TOOLS}
    assert len(stage.model.requests[0].tools) == len(listed)
    assert {tool[0]: tool for tool in stage.model.requests[0].tools} == listed


async def test_the_tools_are_offered_in_the_order_of_the_listing(direct_stage: Stage) -> None:
    await direct_stage.play(says("Hello."))

    assert [name for name, *_ in direct_stage.model.requests[0].tools] == [tool.name for tool in TOOLS]


async def test_what_is_offered_is_listed_anew_for_each_turn(stage: Stage) -> None:
    await stage.play(says("Hello."))
    stage.tools.tools = TOOLS[:1]
    await stage.play(says("Hello again."))

    assert [len(request.tools) for request in stage.model.requests] == [3, 1]


async def test_without_any_grant_the_model_is_offered_nothing(stage: Stage) -> None:
    stage.tools.tools = ()

    assert (await stage.play(says("Hello."))).text == "Hello."
    assert stage.model.requests[0].tools == []


async def test_the_token_reaches_the_tools_and_never_the_model(stage: Stage, adapter: Adapter) -> None:
    header, key = adapter.key_header
    await stage.play(calls(("note", '{"text":"milk"}')), says("Noted."))

    assert stage.tools.tokens == [stage.secret]
    for request in stage.model.requests:
        assert "lk_" not in request.raw.decode() + str(request.headers)
        assert request.headers[header] == key


async def test_a_call_arrives_with_its_arguments_and_the_models_id_for_it(stage: Stage, adapter: Adapter) -> None:
    await stage.play(calls(("note", '{"text":"ünï \\ud83d\\ude80","due":null}')), says("Noted."))

    (call,) = stage.tools.calls
    assert (call.name, call.arguments) == ("note", {"text": "ünï 🚀", "due": None})
    (asked,) = [line for line in stage.model.requests[1].conversation if line[0] == "call"]
    assert call.meta[adapter.call_id] == asked[1]


async def test_the_result_goes_back_to_the_model_as_it_was(stage: Stage) -> None:
    await stage.play(calls(("note", '{"text":"milk"}')), says("Noted."))

    assert [json.loads(result) for result in stage.model.requests[1].results] == [{"noted": "milk"}]


async def test_calls_of_one_answer_are_made_in_their_order_each_under_its_own_id(
    stage: Stage, adapter: Adapter
) -> None:
    asked = [("note", json.dumps({"text": str(number)})) for number in range(4)]
    outcome = await stage.play(calls(*asked), says("All noted."))

    assert outcome.text == "All noted."
    assert [call.arguments["text"] for call in stage.tools.calls] == ["0", "1", "2", "3"]
    assert len({call.meta[adapter.call_id] for call in stage.tools.calls}) == 4
    assert stage.tools.most_at_work == 1


async def test_a_tool_error_is_shown_to_the_model_which_can_mend_it(stage: Stage) -> None:
    outcome = await stage.play(calls(("fail", "{}")), calls(("note", '{"text":"milk"}')), says("Mended."))

    assert outcome.text == "Mended."
    assert json.loads(stage.model.requests[1].results[0]) == {"code": "invalid", "detail": "Not on a Sunday."}
    assert [call.name for call in stage.tools.calls] == ["fail", "note"]


async def test_arguments_that_are_no_json_are_shown_to_the_model_and_reach_no_tool(stage: Stage) -> None:
    outcome = await stage.play(calls(("note", '{"text": "mi')), says("I give up."))

    assert outcome.text == "I give up."
    assert len(stage.model.requests[1].results) == 1
    assert stage.tools.calls == []


async def test_arguments_that_are_no_object_reach_no_tool_either(direct_stage: Stage) -> None:
    """The model is told that nothing was done."""
    script = calls(("note", '{"text": "mi')), calls(("note", "[1]")), says("I give up.")
    outcome = await direct_stage.play(*script)

    assert outcome.text == "I give up."
    assert ["nothing was done" in result for result in direct_stage.model.requests[2].results] == [True, True]
    assert direct_stage.tools.calls == []


async def test_a_tool_that_the_model_invents_is_an_error_that_it_sees(stage: Stage) -> None:
    outcome = await stage.play(calls(("drop_database", "{}")), says("There is no such tool."))

    assert outcome.text == "There is no such tool."
    assert "drop_database" in stage.model.requests[1].results[0]
    assert stage.tools.calls == []


async def test_a_model_that_never_stops_calling_is_stopped(stage: Stage) -> None:
    script = [calls(("note", '{"text":"again"}'))] * 5
    outcome = await stage.play(*script, agent_run=stage.agent_run(max_steps=3))

    assert isinstance(outcome.failure, MaxSteps)
    assert len(stage.model.requests) == 3
    assert outcome.usage == Usage(3, 30, 15)


async def test_a_token_that_opens_nothing_ends_the_turn_before_the_model_is_asked(stage: Stage) -> None:
    stage.tools.refuses = True
    outcome = await stage.play(says("Never said."))

    assert isinstance(outcome.failure, ToolsUnavailable)
    assert stage.model.requests == []
    assert "lk_" not in outcome.failure.detail


async def test_a_call_whose_effect_is_unknown_ends_the_turn(stage: Stage) -> None:
    """It may have been carried out: it is not tried again, and nothing that the model makes of it is told."""
    outcome = await stage.play(calls(("crash", "{}")), says("Never said."))

    assert isinstance(outcome.failure, ToolsUnavailable)
    assert outcome.text == ""
    assert outcome.usage == Usage(1, 10, 5)
    assert len(stage.tools.calls) == 1
    assert "secret-of-the-house" not in outcome.failure.detail


async def test_the_model_does_not_hear_of_a_call_whose_effect_is_unknown(direct_stage: Stage) -> None:
    await direct_stage.play(calls(("crash", "{}")), says("Never said."))

    assert len(direct_stage.model.requests) == 1


async def test_tools_that_are_lost_while_one_works_end_the_turn(stage: Stage) -> None:
    stage.tools.held_until = Event()
    turn = asyncio.ensure_future(stage.play(calls(("note", '{"text":"milk"}'), saying=("Well,",)), says("Never said.")))
    await stage.tools.reached.wait()
    stage.tools.dropped.set()
    outcome = await turn

    assert isinstance(outcome.failure, ToolsUnavailable)
    assert outcome.text == "Well,"
    assert len(stage.tools.calls) == 1


async def test_the_connection_to_the_tools_is_closed_with_the_turn(stage: Stage) -> None:
    await stage.play(calls(("note", '{"text":"milk"}')), says("Noted."))
    await stage.play(calls(("crash", "{}")))

    assert len(stage.tools.tokens) == 2
    assert stage.tools.open_connections == 0
