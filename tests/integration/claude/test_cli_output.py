"""Output of the CLI that other agents' models do not produce, and output that must not count as success."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from latchkey.domain.errors import Failure, ModelBadResponse, ModelUnavailable, ToolsUnavailable
from latchkey.domain.turn import Usage
from tests.fakes.anthropic_events import anthropic_events
from tests.fakes.model_script import Answer, Reply, calls, fails, says
from tests.integration.claude.claude_harness import ClaudeHarness, claude_harness, fake_cli


def altered(answer: Answer, alter: Callable[[bytes], bytes]) -> Reply:
    content, end = anthropic_events(answer)
    return Reply(200, alter(b"".join([*content, *end])), "text/event-stream")


async def test_answer_without_streaming_is_published(harness: ClaudeHarness) -> None:
    """For a server without streaming, the CLI requests the answer in one piece."""
    outcome = await harness.run_turn(
        fails(404),
        Answer(pieces=("Let me ", "see."), calls=(("note", '{"text":"milk"}'),), tokens=(100, 7)),
        fails(404),
        says("Noted."),
    )

    assert [request.body.get("stream", False) for request in harness.model.requests] == [True, False, True, False]
    assert outcome.text == "Let me see.\n\nNoted."
    assert outcome.usage == Usage(2, 110, 12)
    assert outcome.failure is None


async def test_cached_tokens_count_as_input_tokens(harness: ClaudeHarness) -> None:
    cached = b'"cache_creation_input_tokens": 20, "cache_read_input_tokens": 300, "input_tokens"'
    outcome = await harness.run_turn(altered(says("Hello."), lambda text: text.replace(b'"input_tokens"', cached)))

    assert outcome.usage == Usage(1, 330, 5)
    assert [call.cached_tokens for call in outcome.model_calls] == [300]


async def test_arguments_of_one_mebibyte_arrive_unchanged(harness: ClaudeHarness) -> None:
    text = "# Über uns\n\n" + 'Zeile mit "Anführung" und 👩🏽‍🚀\n' * 32_000
    assert len(text.encode()) > 1024 * 1024
    outcome = await harness.run_turn(calls(("note", json.dumps({"text": text}))), says("Saved."))

    assert outcome.text == "Saved."
    assert harness.tools.calls[0].arguments == {"text": text}


async def test_thinking_is_not_published(harness: ClaudeHarness) -> None:
    thinking = (
        b'event: content_block_start\ndata: {"type": "content_block_start", "index": 0, "content_block": '
        b'{"type": "thinking", "thinking": "", "signature": ""}}\n\n'
        b'event: content_block_delta\ndata: {"type": "content_block_delta", "index": 0, "delta": '
        b'{"type": "thinking_delta", "thinking": "Secretly."}}\n\n'
        b'event: content_block_stop\ndata: {"type": "content_block_stop", "index": 0}\n\n'
    )
    start = b"event: content_block_start"

    def with_thinking(text: bytes) -> bytes:
        return text.replace(b'"index": 0', b'"index": 1').replace(start, thinking + start, 1)

    outcome = await harness.run_turn(altered(says("Hello."), with_thinking))

    assert outcome.text == "Hello."


async def test_truncated_answer_is_bad_response_and_counts_usage(harness: ClaudeHarness) -> None:
    truncated = altered(says("Once upon"), lambda text: text.replace(b'"end_turn"', b'"max_tokens"'))
    outcome = await harness.run_turn(truncated, says("Never sent."))

    assert isinstance(outcome.failure, ModelBadResponse)
    assert outcome.usage == Usage(1, 10, 5)
    assert outcome.text == "Once upon"


async def test_call_with_incomplete_arguments_is_not_made(harness: ClaudeHarness) -> None:
    stop = b"event: content_block_stop"
    incomplete = altered(calls(("note", '{"text":"milk"}')), lambda text: text.partition(stop)[0])
    outcome = await harness.run_turn(incomplete, says("Never sent."))

    assert isinstance(outcome.failure, ModelBadResponse)
    assert harness.tools.calls == []


@pytest.mark.parametrize(
    ("program", "failure"),
    [
        pytest.param("", ModelUnavailable, id="no output"),
        pytest.param("raise SystemExit(1)", ModelUnavailable, id="an error"),
        pytest.param("print('hello')", ModelBadResponse, id="output that is not JSON"),
        pytest.param("print('[]')", ModelBadResponse, id="other JSON"),
        pytest.param('print(\'{"type":"result"}\')', ModelBadResponse, id="a line of another shape"),
        pytest.param(
            'print(\'{"type":"result","subtype":"success","is_error":false,"result":"Done."}\')',
            ToolsUnavailable,
            id="success without tools",
        ),
        pytest.param("while True: print('x' * 1_000_000, end='')", ModelBadResponse, id="an endless line"),
        pytest.param(
            'while True: print(\'{"type":"system","subtype":"x"}\' + " " * 1_000_000)',
            ModelBadResponse,
            id="endless output",
        ),
    ],
)
async def test_program_that_is_not_the_cli_fails_the_turn(
    folder: Path, tmp_path: Path, program: str, failure: type[Failure]
) -> None:
    async with claude_harness(folder, path=fake_cli(tmp_path, program)) as harness:
        outcome = await harness.run_turn()

        assert type(outcome.failure) is failure
        assert outcome.events == []
        assert harness.processes == []
        assert harness.workspaces == []


async def test_missing_program_error_names_the_setting_to_check(folder: Path, tmp_path: Path) -> None:
    async with claude_harness(folder, path=tmp_path / "missing") as harness:
        outcome = await harness.run_turn()

    assert isinstance(outcome.failure, ModelUnavailable)
    assert "LATCHKEY_CLAUDE_CLI" in outcome.failure.detail
