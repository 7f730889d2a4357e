"""A conversation is sent to the model's server and nowhere else."""

import sys
from collections.abc import Iterator
from typing import Any

import agents
import pytest

from tests.contract.agents.agent_harness import AgentHarness
from tests.fakes.model_script import calls, says


class RecordingTraceProcessor(agents.TracingProcessor):
    """Records what the SDK would trace."""

    def __init__(self) -> None:
        self.traces: list[Any] = []

    def on_trace_start(self, trace: Any) -> None:
        self.traces.append(trace)

    def on_trace_end(self, trace: Any) -> None:
        self.traces.append(trace)

    def on_span_start(self, span: Any) -> None:
        self.traces.append(span)

    def on_span_end(self, span: Any) -> None:
        self.traces.append(span)

    def shutdown(self) -> None: ...
    def force_flush(self) -> None: ...


@pytest.fixture
def processor() -> Iterator[RecordingTraceProcessor]:
    processor = RecordingTraceProcessor()
    agents.add_trace_processor(processor)
    yield processor
    agents.set_trace_processors([])


_connections: list[Any] = []
sys.addaudithook(lambda event, arguments: _connections.append(arguments[1]) if event == "socket.connect" else None)


async def test_turn_connects_only_to_the_configured_server(direct_harness: AgentHarness) -> None:
    _connections.clear()
    await direct_harness.run_turn(calls(("note", '{"text":"milk"}')), says("Noted."))

    assert {f"http://{host}:{port}/v1" for host, port, *_ in _connections} == {direct_harness.model.base_url}


async def test_sdk_tracing_is_disabled(harness: AgentHarness, processor: RecordingTraceProcessor) -> None:
    await harness.run_turn(calls(("note", '{"text":"milk"}')), calls(("fail", "{}")), says("Noted."))

    assert len(harness.model.requests) == 3
    assert processor.traces == []
