"""A conversation that is longer than the model's context window."""

import json

import pytest

from latchkey.domain.errors import ContextTooLong
from latchkey.domain.message import PastTurn
from tests.contract.agents.agent_harness import AgentHarness
from tests.fakes.model_script import Reply, calls, fails, says

TOO_LONG = [
    "This model's maximum context length is 4096 tokens. However, you requested 5000 tokens.",
    "the request exceeds the available context size. try increasing the context size",
    "prompt is too long: 208310 tokens > 200000 maximum",
    "The input token count (12345) exceeds the maximum number of tokens allowed (10000).",
    "The input (5000 tokens) is longer than the model's context length (4096 tokens).",
    "Your input exceeds the context window of this model.",
    "Input is too long for requested model.",
    "`inputs` tokens + `max_new_tokens` must be <= 4096. Given: 5000 `inputs` tokens",
    "Please reduce the length of the messages or completion.",
    "Trying to keep the first 5000 tokens when context the overflows; loaded with context length of only 4096 tokens",
]
PROMPT_TOO_LONG = TOO_LONG[2]
HISTORY = [PastTurn(f"Question {number}", [], "word " * 100) for number in range(10)]


@pytest.mark.parametrize("message", TOO_LONG)
async def test_context_too_long_is_tried_once_more_without_the_oldest_turns(
    direct_harness: AgentHarness, message: str
) -> None:
    outcome = await direct_harness.run_turn(
        fails(400, message), says("Hello."), agent_run=direct_harness.agent_run("And now?", history=HISTORY)
    )
    _, *conversation, last = direct_harness.model.requests[1].conversation

    assert (outcome.text, outcome.failure) == ("Hello.", None)
    assert last == ("user", "And now?")
    assert 0 < len(conversation) < 20
    assert conversation[0][0] == "user"
    assert conversation[-2] == ("user", "Question 9")


@pytest.mark.parametrize("limit", [3_500, 4_500])
async def test_context_too_long_cuts_the_history_so_that_the_whole_request_fits(
    direct_harness: AgentHarness, limit: int
) -> None:
    """With instructions, tools and the current message, which stay, and with room for an answer."""
    message = f"maximum context length is {limit} tokens. However, you requested 5,000 tokens."
    await direct_harness.run_turn(
        fails(400, message), says("Hello."), agent_run=direct_harness.agent_run("And now?", history=HISTORY)
    )
    first, second = (len(request.raw) for request in direct_harness.model.requests)
    turn = (first - second) // (10 - (len(direct_harness.model.requests[1].conversation) - 2) // 2)

    assert second <= 0.9 * limit / 5_000 * first < second + turn


async def test_context_too_long_is_recognized_by_every_agent(harness: AgentHarness) -> None:
    outcome = await harness.run_turn(
        fails(400, PROMPT_TOO_LONG), says("Hello."), agent_run=harness.agent_run("And now?", history=HISTORY)
    )
    first, second = (request.conversation for request in harness.model.requests)

    assert (outcome.text, outcome.failure) == ("Hello.", None)
    assert 1 < len(second) < len(first)
    assert second[-1] == ("user", "And now?")
    assert ("user", "Question 9") in second


async def test_context_too_long_twice_fails_the_turn(harness: AgentHarness) -> None:
    outcome = await harness.run_turn(
        *[fails(400, PROMPT_TOO_LONG)] * 2, agent_run=harness.agent_run("And now?", history=HISTORY)
    )

    assert type(outcome.failure) is ContextTooLong
    assert len(harness.model.requests) == 2


async def test_context_too_long_without_history_fails_at_once(harness: AgentHarness) -> None:
    outcome = await harness.run_turn(fails(400, PROMPT_TOO_LONG))

    assert type(outcome.failure) is ContextTooLong
    assert len(harness.model.requests) == 1


async def test_context_too_long_after_a_tool_call_makes_no_call_twice(harness: AgentHarness) -> None:
    """An agent that cannot continue with a shorter history fails."""
    script = calls(("note", '{"text":"milk"}')), fails(400, PROMPT_TOO_LONG), says("Noted.")
    outcome = await harness.run_turn(*script, agent_run=harness.agent_run("Note", history=HISTORY))

    assert outcome.text == "Noted." or type(outcome.failure) is ContextTooLong
    assert len(harness.tools.calls) == 1


async def test_context_too_long_inside_an_answer_is_recognized(direct_harness: AgentHarness) -> None:
    error = {"error": {"code": "context_length_exceeded", "message": "no"}}
    reply = Reply(200, f"data: {json.dumps(error)}\n\n".encode(), "text/event-stream")
    outcome = await direct_harness.run_turn(
        reply, says("Hello."), agent_run=direct_harness.agent_run("And now?", history=HISTORY)
    )

    assert outcome.text == "Hello."


async def test_context_too_long_after_a_tool_call_repeats_no_call(direct_harness: AgentHarness) -> None:
    script = calls(("note", '{"text":"milk"}')), fails(400, TOO_LONG[0]), says("Noted.")
    outcome = await direct_harness.run_turn(*script, agent_run=direct_harness.agent_run("Note", history=HISTORY))

    assert outcome.text == "Noted."
    assert len(direct_harness.tools.calls) == 1
