"""The history in a request to the model: messages, tool calls and results in their order."""

from datetime import UTC, datetime
from uuid import UUID, uuid4

from msgspec import Raw

from latchkey.domain.message import PastTurn
from latchkey.domain.tool_call import NO_RESULT, ToolCall, ToolCallId
from latchkey.infrastructure.agents.toolset import MAX_RESULT_CHARS
from tests.contract.agents.agent_harness import AgentHarness
from tests.fakes.model_script import calls, says


def make_call(arguments: bytes, result: bytes, *, is_error: bool = False) -> ToolCall:
    return ToolCall(
        id=ToolCallId(uuid4()),
        name="note",
        arguments=Raw(arguments),
        result=Raw(result),
        is_error=is_error,
        started_at=datetime(2025, 1, 1, tzinfo=UTC),
        duration_ms=3,
    )


def expected_items(call: ToolCall, arguments: str, result: str) -> list[tuple[str, ...]]:
    assert isinstance(call.id, UUID)
    return [("call", str(call.id), "note", arguments), ("result", str(call.id), result)]


async def test_history_contains_tool_calls_and_results_in_order(harness: AgentHarness) -> None:
    first = make_call(b'{"text":"tea"}', b'{"noted":"tea"}')
    second = make_call(b'{"text":""}', b'{"code":"invalid","detail":"text: is empty"}', is_error=True)
    history = [
        PastTurn("Note tea.", [first, second], "One of two."),
        PastTurn("Thanks!", [], "You are welcome."),
    ]
    outcome = await harness.run_turn(says("Tea."), agent_run=harness.agent_run("What did I note?", history=history))

    assert outcome.text == "Tea."
    assert harness.model.requests[0].conversation == [
        ("system", "You keep notes."),
        ("user", "Note tea."),
        *expected_items(first, '{"text":"tea"}', '{"noted":"tea"}'),
        *expected_items(second, '{"text":""}', '{"code":"invalid","detail":"text: is empty"}'),
        ("assistant", "One of two."),
        ("user", "Thanks!"),
        ("assistant", "You are welcome."),
        ("user", "What did I note?"),
    ]


async def test_history_shows_unfinished_tool_call_without_result(harness: AgentHarness) -> None:
    unfinished, unknown = make_call(b"{}", b"null"), make_call(b"", b"")
    history = [PastTurn("Note tea.", [unfinished, unknown], None)]
    await harness.run_turn(says("Hm."), agent_run=harness.agent_run("And?", history=history))

    assert harness.model.requests[0].conversation == [
        ("system", "You keep notes."),
        ("user", "Note tea."),
        *expected_items(unfinished, "{}", "no result recorded"),
        *expected_items(unknown, "{}", "no result recorded"),
        ("user", "And?"),
    ]


async def test_history_keeps_calls_with_and_without_result_together(harness: AgentHarness) -> None:
    """In an answered turn and in a turn without an answer."""
    with_result = make_call(b'{"text":"tea"}', b'{"noted":"tea"}')
    lost, last = (make_call(b'{"text":"milk"}', bytes(NO_RESULT), is_error=True) for _ in range(2))
    history = [
        PastTurn("Note tea.", [with_result, lost], "One of two."),
        PastTurn("And milk!", [last], None),
    ]
    outcome = await harness.run_turn(says("Again, then."), agent_run=harness.agent_run("And?", history=history))

    assert outcome.text == "Again, then."
    assert harness.model.requests[0].conversation == [
        ("system", "You keep notes."),
        ("user", "Note tea."),
        *expected_items(with_result, '{"text":"tea"}', '{"noted":"tea"}'),
        *expected_items(lost, '{"text":"milk"}', "no result recorded"),
        ("assistant", "One of two."),
        ("user", "And milk!"),
        *expected_items(last, '{"text":"milk"}', "no result recorded"),
        ("user", "And?"),
    ]


async def test_history_shows_all_unfinished_tool_calls_of_a_turn(harness: AgentHarness) -> None:
    """The next turn can call the tool again."""
    lost = [make_call(b'{"text":"%d"}' % number, bytes(NO_RESULT), is_error=True) for number in range(4)]
    history = [PastTurn("Note all four.", lost, None)]
    script = calls(("note", '{"text":"0"}')), says("Noted.")
    outcome = await harness.run_turn(*script, agent_run=harness.agent_run("Again!", history=history))

    assert outcome.text == "Noted."
    assert harness.model.requests[0].results == ["no result recorded"] * 4
    assert [call.arguments for call in harness.tools.calls] == [{"text": "0"}]
    assert [request.name for request in outcome.requests] == ["note"]


async def test_history_of_one_turn_is_not_kept_for_the_next(
    harness: AgentHarness,
) -> None:
    history = [PastTurn("One.", [], "Two.")]
    await harness.run_turn(says("Three."), agent_run=harness.agent_run("Two?", history=history))
    await harness.run_turn(says("Hello."), agent_run=harness.agent_run("Hi."))

    assert harness.model.requests[1].conversation == [("system", "You keep notes."), ("user", "Hi.")]


async def test_fields_that_only_openai_knows_are_not_sent_to_other_servers(direct_harness: AgentHarness) -> None:
    await direct_harness.run_turn(says("Hello."))

    assert not {"store", "include"} & direct_harness.model.requests[0].body.keys()
    assert b'"strict"' not in direct_harness.model.requests[0].raw


async def test_history_cuts_long_results_and_tells_the_model(harness: AgentHarness) -> None:
    call = make_call(b'{"text":"tea"}', b'{"noted":"%s"}' % (b"x" * 100_000))
    history = [PastTurn("Note tea.", [call], "Noted.")]
    await harness.run_turn(says("Tea."), agent_run=harness.agent_run("What did I note?", history=history))
    (result,) = harness.model.requests[0].results

    assert result.startswith('{"noted":"xxx')
    assert len(result) < MAX_RESULT_CHARS + 300
    assert "characters of this result are left out" in result[-300:]
