"""The undocumented names of the OpenAI Agents SDK that we use: see `tests/unit/agents/test_agents_sdk.py`."""

from agents.models import get_default_model
from agents.models.chatcmpl_converter import Converter
from agents.models.chatcmpl_stream_handler import ChatCmplStreamHandler
from agents.models.fake_id import FAKE_RESPONSES_ID
from agents.tool_context import ToolContext

__all__ = ["FAKE_RESPONSES_ID", "ChatCmplStreamHandler", "Converter", "ToolContext", "get_default_model"]
