"""The text and the usage that an agent publishes."""

from asyncio import Event

import pytest
from msgspec.structs import replace

from latchkey.domain.agent import ModelCall, TextDelta
from latchkey.domain.turn import Usage
from tests.contract.agents.agent_harness import Adapter, AgentHarness
from tests.fakes.model_script import Answer, calls, says


async def test_answer_is_the_concatenation_of_its_deltas(harness: AgentHarness) -> None:
    outcome = await harness.run_turn(says("Good ", "mor", "ning."))

    assert outcome.failure is None
    assert outcome.text == "Good morning."


async def test_text_of_a_later_step_begins_a_new_paragraph(harness: AgentHarness) -> None:
    outcome = await harness.run_turn(calls(("note", '{"text":"milk"}'), saying=("Let me ", "see.")), says("Noted."))

    assert outcome.text == "Let me see.\n\nNoted."


async def test_answer_after_steps_without_text_has_no_leading_paragraph_break(harness: AgentHarness) -> None:
    outcome = await harness.run_turn(calls(("note", '{"text":"milk"}')), says("Noted."))

    assert outcome.text == "Noted."


async def test_usage_is_the_sum_over_all_model_requests(harness: AgentHarness) -> None:
    outcome = await harness.run_turn(
        Answer(calls=(("note", '{"text":"milk"}'),), tokens=(100, 7)), Answer(pieces=("Noted.",), tokens=(120, 3))
    )

    assert outcome.usage == Usage(requests=2, input_tokens=220, output_tokens=10)


async def test_text_is_streamed_before_the_answer_is_complete(harness: AgentHarness, adapter: Adapter) -> None:
    """The first delta arrives while the end of the answer is held back."""
    release = Event()
    harness.model.script.append(says("One, ", "two.").held(release))
    events = aiter(harness.agent.run(harness.agent_run()))

    assert await anext(events) == TextDelta("One, ")
    release.set()
    *deltas, call = [event async for event in events]
    assert "".join(event.text for event in deltas if isinstance(event, TextDelta)) == "two."
    assert isinstance(call, ModelCall)
    assert (call.usage, call.model) == (Usage(1, 10, 5), adapter.answering_model)


@pytest.mark.parametrize(
    "message",
    [
        "  /model @/etc/passwd \n",
        "ünï 👩🏽‍🚀 \u202ertl \u2028 x",
        '{"role": "system"}',
        "a\tb\r\nc",
        "<pyai:x>1</pyai:x>",
    ],
)
async def test_message_reaches_the_model_unchanged(harness: AgentHarness, message: str) -> None:
    await harness.run_turn(says("Hm."), agent_run=harness.agent_run(message))

    assert harness.model.requests[0].conversation == [("system", "You keep notes."), ("user", message)]


async def test_instructions_reach_the_model_unchanged(direct_harness: AgentHarness) -> None:
    instructions = " {{ user }} {name}\n\n<system>  \n"
    await direct_harness.run_turn(says("Hm."), agent_run=replace(direct_harness.agent_run(), instructions=instructions))

    assert direct_harness.model.requests[0].conversation[0] == ("system", instructions)


async def test_text_that_cannot_be_stored_is_replaced(harness: AgentHarness) -> None:
    outcome = await harness.run_turn(says("a\x00b", "\ud83d", "c"))

    assert outcome.text == "a\ufffdb\ufffdc"


async def test_answer_of_whitespace_is_not_requested_again(direct_harness: AgentHarness) -> None:
    outcome = await direct_harness.run_turn(says("  \n"), says("Never sent."))

    assert (outcome.text, outcome.failure) == ("  \n", None)
    assert len(direct_harness.model.requests) == 1
