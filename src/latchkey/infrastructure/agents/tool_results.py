"""How a tool call of an earlier turn is shown to a model."""

from latchkey.domain.tool_call import ToolCall

_NO_RESULT = "no result recorded"


def result_text(call: ToolCall) -> str:
    """The recorded result as JSON, or a note if the turn ended before the call had a result."""
    return bytes(call.result).decode() if call.has_result else _NO_RESULT
