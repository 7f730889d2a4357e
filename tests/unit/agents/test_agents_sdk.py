"""The undocumented parts of the libraries that the OpenAI agent relies on.

A failure here after an update means: adapt `openai/agents_sdk.py` (openai-agents) or `openai/model_client.py` (openai).
"""

import inspect
from importlib import import_module
from importlib.metadata import version

import agents
import openai
import pytest


@pytest.mark.parametrize(
    ("module", "name"),
    [
        ("agents.models.chatcmpl_converter", "Converter.items_to_messages"),
        ("agents.models.chatcmpl_converter", "Converter.tool_to_openai"),
        ("agents.models.chatcmpl_stream_handler", "ChatCmplStreamHandler.handle_stream"),
        ("agents.models.fake_id", "FAKE_RESPONSES_ID"),
        ("agents.models", "get_default_model"),
        ("agents.tool_context", "ToolContext"),
    ],
)
def test_undocumented_name_of_the_agents_sdk_exists(module: str, name: str) -> None:
    value = import_module(module)
    for part in name.split("."):
        assert hasattr(value, part), f"openai-agents {version('openai-agents')} has no {module}.{name}"
        value = getattr(value, part)


@pytest.mark.parametrize(
    ("function", "parameters"),
    [
        (agents.Model.get_response, {"system_instructions", "input", "tools"}),
        (agents.Agent.get_all_tools, {"run_context"}),
        (openai.AsyncOpenAI.post, {"content", "cast_to", "stream", "stream_cls"}),
    ],
    ids=lambda value: getattr(value, "__qualname__", ""),
)
def test_library_function_has_the_expected_parameters(function: object, parameters: set[str]) -> None:
    assert callable(function)
    missing = parameters - inspect.signature(function).parameters.keys()

    assert not missing, f"{function} has no parameters {missing}: openai-agents or openai has changed"


def test_openai_stream_has_its_http_response() -> None:
    message = f"openai {version('openai')}: AsyncStream has no attribute `response`"

    assert "response" in openai.AsyncStream.__annotations__, message
