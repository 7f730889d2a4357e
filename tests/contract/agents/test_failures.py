"""The failure of a turn whose model cannot be reached or does not answer properly."""

import socket
from asyncio import Event

import pytest

from latchkey.domain.agent import ModelCall, TextDelta
from latchkey.domain.errors import ModelBadResponse, ModelUnavailable, RateLimited, TurnFailed
from latchkey.domain.turn import Usage
from tests.contract.agents.agent_harness import API_KEY, Adapter, AgentHarness
from tests.fakes.model_script import Answer, Reply, Step, calls, fails, says

HTML = Reply(200, b"<html><title>Welcome to our proxy</title></html>", "text/html")
ERROR_EVENT = Reply(
    200,
    b'event: error\ndata: {"type":"error","error":{"type":"overloaded_error","message":"overloaded","code":500}}\n\n',
    "text/event-stream",
)


async def test_rate_limit_with_long_retry_after_is_not_retried(harness: AgentHarness) -> None:
    outcome = await harness.run_turn(fails(429, retry_after="17"), says("Never sent."))

    assert isinstance(outcome.failure, RateLimited)
    assert 17 <= outcome.failure.retry_after <= 24
    assert len(harness.model.requests) == 1


async def test_rate_limit_reports_retry_after_of_the_server(direct_harness: AgentHarness) -> None:
    outcome = await direct_harness.run_turn(fails(429, retry_after="17"))

    assert isinstance(outcome.failure, RateLimited)
    assert outcome.failure.retry_after == 17


@pytest.mark.parametrize("retry_after", ["-1", "soon", "1e99", "nan", "Wed, 21 Oct 2099 07:28:00 GMT"])
async def test_rate_limit_with_invalid_retry_after_reports_the_default(harness: AgentHarness, retry_after: str) -> None:
    outcome = await harness.run_turn(fails(429, retry_after=retry_after, x_should_retry="false"))

    assert isinstance(outcome.failure, RateLimited)
    assert outcome.failure.retry_after == 10


@pytest.mark.parametrize("status", [503, 429])
async def test_transient_error_before_any_text_is_retried(harness: AgentHarness, status: int) -> None:
    outcome = await harness.run_turn(fails(status, retry_after_ms="1"), says("Hello."))

    assert outcome.failure is None
    assert outcome.text == "Hello."
    assert (outcome.metrics.retries, outcome.metrics.upstream_status) == (1, 200)


async def test_second_transient_error_is_retried(direct_harness: AgentHarness) -> None:
    outcome = await direct_harness.run_turn(
        fails(503, retry_after_ms="1"), fails(429, retry_after_ms="1"), says("Hello.")
    )

    assert outcome.text == "Hello."
    assert (outcome.metrics.retries, outcome.metrics.upstream_status, len(outcome.metrics.model_ms)) == (2, 200, 1)


async def test_persistent_server_error_is_model_unavailable(harness: AgentHarness) -> None:
    outcome = await harness.run_turn(*[fails(500, retry_after_ms="1")] * 3)

    assert isinstance(outcome.failure, ModelUnavailable)
    assert 1 < len(harness.model.requests) <= 3
    assert outcome.metrics.retries == len(harness.model.requests) - 1
    assert outcome.metrics.upstream_status == 500


@pytest.mark.parametrize(("status", "names"), [(400, "api"), (401, "key"), (403, "key"), (404, "model")])
async def test_client_error_names_the_setting_to_check_and_no_secret(
    harness: AgentHarness, adapter: Adapter, status: int, names: str
) -> None:
    outcome = await harness.run_turn(*[fails(status, f"Incorrect API key provided: {API_KEY}")] * 5)

    assert isinstance(outcome.failure, ModelUnavailable)
    assert adapter.settings[names] in outcome.failure.detail
    assert API_KEY not in outcome.failure.detail


@pytest.mark.parametrize("status", [400, 401, 403, 404])
async def test_client_error_is_not_retried(direct_harness: AgentHarness, status: int) -> None:
    await direct_harness.run_turn(fails(status))

    assert len(direct_harness.model.requests) == 1


async def test_redirect_is_not_followed(direct_harness: AgentHarness) -> None:
    elsewhere = f"{direct_harness.model.base_url}/elsewhere"
    outcome = await direct_harness.run_turn(Reply(307, headers={"Location": elsewhere}))

    assert isinstance(outcome.failure, ModelUnavailable)
    assert len(direct_harness.model.requests) == 1


async def test_unreachable_server_is_model_unavailable(harness: AgentHarness, adapter: Adapter) -> None:
    with socket.create_server(("127.0.0.1", 0)) as closed:
        port = closed.getsockname()[1]
    async with adapter(harness.tools, f"http://127.0.0.1:{port}/v1") as agent:
        harness.agent = agent
        outcome = await harness.run_turn()

    assert isinstance(outcome.failure, ModelUnavailable)
    assert adapter.settings["url"] in outcome.failure.detail
    assert outcome.metrics.upstream_status is None
    assert outcome.metrics.retries > 0


NO_ANSWERS = pytest.mark.parametrize(
    "step",
    [
        pytest.param(HTML, id="a web page"),
        pytest.param(Reply(200, b"{}"), id="an empty object"),
        pytest.param(Reply(200, b"", "text/event-stream"), id="an empty stream"),
        pytest.param(Reply(200, b"data: [DONE]\n\n", "text/event-stream"), id="a stream that only ends"),
        pytest.param(Reply(200, b"data: {oops\n\n", "text/event-stream"), id="a stream of no JSON"),
        pytest.param(Reply(200, b"data: 7\n\ndata: [DONE]\n\n", "text/event-stream"), id="a stream of other JSON"),
        pytest.param(says("Half an ").cut(), id="a stream that ends early"),
        pytest.param(calls(("note", '{"text":"milk"}')).cut(), id="a call that ends early"),
        pytest.param(
            says("data: [DONE]", '"finish_reason": "stop"', '"type":"response.completed"').cut(),
            id="a stream that quotes its end",
        ),
        pytest.param(Answer(), id="no text and no tool call"),
        pytest.param(says("x" * 1_000_000, "x" * 100_000), id="an answer longer than the limit"),
    ],
)


@NO_ANSWERS
async def test_incomplete_or_malformed_answer_is_bad_response(harness: AgentHarness, step: Step) -> None:
    """It does not count as an answer, and no other answer replaces it."""
    outcome = await harness.run_turn(step, says("Never sent."))

    assert isinstance(outcome.failure, ModelBadResponse), outcome
    assert "Never" not in outcome.text


@NO_ANSWERS
async def test_incomplete_or_malformed_answer_is_not_retried_and_calls_no_tool(
    direct_harness: AgentHarness, step: Step
) -> None:
    """For agents that send the model's requests themselves."""
    await direct_harness.run_turn(step, says("Never sent."))

    assert len(direct_harness.model.requests) == 1
    assert direct_harness.tools.calls == []


async def test_disconnect_after_streamed_text_is_bad_response(harness: AgentHarness) -> None:
    disconnect = Event()
    harness.model.script += [says("Half ", "an ").broken().held(disconnect), says("Never sent.")]
    events = aiter(harness.agent.run(harness.agent_run()))

    assert await anext(events) == TextDelta("Half ")
    disconnect.set()
    with pytest.raises(ModelBadResponse):
        assert [event async for event in events] == [TextDelta("an ")]


async def test_disconnect_during_an_answer_is_not_retried(direct_harness: AgentHarness) -> None:
    outcome = await direct_harness.run_turn(says("Half an ").broken(), says("Never sent."))

    assert isinstance(outcome.failure, ModelBadResponse)
    assert len(direct_harness.model.requests) == 1


async def test_error_event_in_the_stream_is_model_unavailable(harness: AgentHarness) -> None:
    outcome = await harness.run_turn(*[ERROR_EVENT] * 2)

    assert isinstance(outcome.failure, ModelUnavailable)


async def test_text_and_usage_before_a_failure_are_published(harness: AgentHarness) -> None:
    outcome = await harness.run_turn(calls(("note", '{"text":"milk"}'), saying=("One moment.",)), says("Hal").cut())

    assert isinstance(outcome.failure, ModelBadResponse)
    assert outcome.text == "One moment.\n\nHal"
    assert outcome.usage == Usage(1, 10, 5)
    assert [call.name for call in harness.tools.calls] == ["note"]


async def test_agent_works_after_failed_turns(harness: AgentHarness) -> None:
    for step in (HTML, says("Hal").cut(), fails(403)):
        assert isinstance((await harness.run_turn(step)).failure, TurnFailed)

    assert (await harness.run_turn(says("Hello."))).text == "Hello."


async def test_concurrent_turns_are_independent(harness: AgentHarness, adapter: Adapter) -> None:
    """One turn waits in the middle of its answer while another one begins and ends."""
    release = Event()
    harness.model.script.append(says("slow", "ly").held(release))
    slow = aiter(harness.agent.run(harness.agent_run("slow")))
    first = await anext(slow)
    quick = await harness.run_turn(says("quickly"), agent_run=harness.agent_run("quick"))
    release.set()

    assert quick.text == "quickly"
    last = [first, *[event async for event in slow]][-1]
    assert isinstance(last, ModelCall)
    assert (last.usage, last.model) == (Usage(1, 10, 5), adapter.answering_model)
