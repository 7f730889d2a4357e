"""A run with the steps of an earlier attempt goes on after the last of them."""

import json

from msgspec.structs import replace

from latchkey.domain.agent import AgentRun, PastStep
from latchkey.domain.message import PastTurn
from latchkey.infrastructure.agents.claude.protocol import CONTINUE
from tests.contract.agents.agent_harness import Adapter, AgentHarness
from tests.contract.agents.test_history import expected_items, make_call
from tests.fakes.model_script import calls, says

TEA = make_call(b'{"text":"tea"}', b'{"noted":"tea"}')
MILK = make_call(b'{"text":"milk"}', b'{"code":"no-result","detail":"No result recorded."}', is_error=True)
STEPS = [PastStep("One moment. ", [TEA]), PastStep("", [MILK])]
SHOWN = [
    ("user", "Note tea and milk."),
    ("assistant", "One moment. "),
    *expected_items(TEA, '{"text":"tea"}', '{"noted":"tea"}'),
    *expected_items(MILK, '{"text":"milk"}', '{"code":"no-result","detail":"No result recorded."}'),
]


def continued(harness: AgentHarness, history: list[PastTurn] | None = None) -> AgentRun:
    return replace(harness.agent_run("Note tea and milk.", history=history), steps=STEPS)


async def test_continued_run_shows_the_model_what_was_done(harness: AgentHarness, adapter: Adapter) -> None:
    """The calls and their results follow the user's message; the model is asked what comes next."""
    history = [PastTurn("Hello.", [], "Hello!")]
    await harness.run_turn(says("Only tea."), agent_run=continued(harness, history))

    (request,) = harness.model.requests
    beginning = [("system", "You keep notes."), ("user", "Hello."), ("assistant", "Hello!")]
    # Only its user can make the CLI ask the model.
    end = [] if adapter.is_direct else [("user", CONTINUE)]
    assert request.conversation == [*beginning, *SHOWN, *end]


async def test_continued_run_repeats_neither_texts_nor_calls(harness: AgentHarness) -> None:
    """Its text is a further paragraph of the answer that the earlier attempt has begun."""
    outcome = await harness.run_turn(says("Only ", "tea."), agent_run=continued(harness))

    assert outcome.failure is None
    assert outcome.text == "\n\nOnly tea."
    assert (outcome.requests, harness.tools.calls) == ([], [])
    assert outcome.usage.requests == 1


async def test_continued_run_calls_tools(harness: AgentHarness, adapter: Adapter) -> None:
    """Under ids that the earlier attempt has not used, even if the model repeats one."""
    call = calls(("note", '{"text":"milk"}'), saying=("Again. ",))
    outcome = await harness.run_turn(call, says("Both."), agent_run=continued(harness))

    (made,) = harness.tools.calls
    assert made.arguments == {"text": "milk"}
    assert made.meta[adapter.call_id] not in {str(TEA.id), str(MILK.id)}
    assert [json.loads(result) for result in harness.model.requests[1].results] == [
        {"noted": "tea"},
        {"code": "no-result", "detail": "No result recorded."},
        {"noted": "milk"},
    ]
    assert outcome.text == "\n\nAgain. \n\nBoth."


async def test_continued_run_without_text_so_far_begins_the_answer(harness: AgentHarness) -> None:
    run = replace(continued(harness), steps=[PastStep("", [TEA])])

    assert (await harness.run_turn(says("Noted."), agent_run=run)).text == "Noted."


async def test_continued_run_that_had_done_nothing_is_a_run_from_the_start(harness: AgentHarness) -> None:
    outcome = await harness.run_turn(says("Hello."), agent_run=replace(harness.agent_run(), attempt=2))

    assert outcome.text == "Hello."
    assert [line[0] for line in harness.model.requests[0].conversation] == ["system", "user"]
