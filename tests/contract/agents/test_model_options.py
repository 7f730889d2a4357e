"""The options of an assistant reach the requests to its model, under the names of each API."""

from typing import Any

import pytest
from msgspec.structs import replace

from latchkey.domain.assistant import ModelOptions
from tests.contract.agents.agent_harness import AgentHarness
from tests.fakes.model_script import says

OPTIONS = ModelOptions("other", 0.5, "low", 900)
FIELDS = {
    "responses": {"model": "other", "temperature": 0.5, "reasoning": {"effort": "low"}, "max_output_tokens": 900},
    "chat/completions": {"model": "other", "temperature": 0.5, "reasoning_effort": "low", "max_tokens": 900},
    # The Claude CLI has no option for the temperature.
    "messages": {"model": "other", "output_config": {"effort": "low"}, "max_tokens": 900},
}
ALL_FIELDS = {name for fields in FIELDS.values() for name in fields}


async def requested(harness: AgentHarness, options: ModelOptions) -> tuple[str, dict[str, Any]]:
    """Run one turn; return the path and the body of its request to the model."""
    outcome = await harness.run_turn(says("Hi."), agent_run=replace(harness.agent_run(), options=options))
    assert (outcome.text, outcome.failure) == ("Hi.", None)
    request = harness.model.requests[-1]
    return request.path.partition("?")[0].rpartition("/v1/")[2], request.body


async def test_model_options_are_in_the_request(harness: AgentHarness) -> None:
    path, body = await requested(harness, OPTIONS)

    assert {name: body[name] for name in FIELDS[path]} == FIELDS[path]


async def test_model_options_without_choice_are_not_in_the_request(direct_harness: AgentHarness) -> None:
    """Some servers refuse a field that they do not know."""
    _, body = await requested(direct_harness, ModelOptions())

    assert ALL_FIELDS & body.keys() == {"model"}
    assert body["model"] == "fake"


@pytest.mark.parametrize("name", ["temperature", "reasoning_effort", "max_output_tokens", "model"])
async def test_model_option_alone_adds_one_field(direct_harness: AgentHarness, name: str) -> None:
    path, body = await requested(direct_harness, ModelOptions(**{name: getattr(OPTIONS, name)}))
    added = ALL_FIELDS & body.keys() - {"model"}

    assert {field: body[field] for field in added}.items() <= FIELDS[path].items()
    assert len(added) == (name != "model")


async def test_zero_temperature_is_sent(direct_harness: AgentHarness) -> None:
    _, body = await requested(direct_harness, ModelOptions(temperature=0.0))

    assert body["temperature"] == 0
