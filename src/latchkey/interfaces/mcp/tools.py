"""The list of tools, in the order in which they are shown."""

import json
from collections.abc import Callable
from typing import Any

from msgspec import Struct

from latchkey.application.artifacts import get_artifact, list_artifacts, save_artifact
from latchkey.application.tasks import add_task, complete_task, delete_task, list_tasks, update_task
from latchkey.interfaces.mcp.tool_schema import ToolBinding

Text = Callable[[dict[str, Any]], str]


class Tool(Struct, frozen=True):
    """A use case that models may call, and how `tools/list` shows it."""

    binding: ToolBinding
    listing: dict[str, Any]
    text: Text | None = None
    """What its answer says to models, if not the structured content as JSON."""

    @property
    def name(self) -> str:
        return self.binding.name


def _tool(
    use_case: Callable[..., Any],
    title: str,
    annotations: dict[str, bool],
    text: Callable[[dict[str, Any]], str] | None = None,
) -> Tool:
    binding = ToolBinding.of(use_case)
    listing = {
        "name": binding.name,
        "title": title,
        "description": binding.description,
        "inputSchema": binding.input_schema,
        "outputSchema": binding.output_schema,
        "annotations": {**annotations, "openWorldHint": False},
    }
    return Tool(binding, listing, text)


def _marker(saved: dict[str, Any]) -> str:
    """A line that clients look for: what lies between the first colon and the last bar is JSON, whatever the title."""
    told = {name: saved[name] for name in ("id", "artifact_type", "title")}
    return f"ARTIFACT_CREATED:{json.dumps(told, ensure_ascii=False)}|File generated successfully."


# What each does to the person's list: whether it changes it, whether it can lose what was there, and whether
# the same call again would change it further.
_READS = {"readOnlyHint": True, "destructiveHint": False, "idempotentHint": True}
_ADDS = {"readOnlyHint": False, "destructiveHint": False, "idempotentHint": False}
_MARKS = {"readOnlyHint": False, "destructiveHint": False, "idempotentHint": True}
_REPLACES = {"readOnlyHint": False, "destructiveHint": True, "idempotentHint": True}

_LISTED = (
    _tool(add_task, "Add a to-do task", _ADDS),
    _tool(list_tasks, "List to-do tasks", _READS),
    _tool(complete_task, "Complete a to-do task", _MARKS),
    _tool(delete_task, "Delete a to-do task", _REPLACES),
    _tool(update_task, "Change a to-do task", _REPLACES),
    _tool(save_artifact, "Save a document", _ADDS, _marker),
    _tool(list_artifacts, "List saved documents", _READS),
    _tool(get_artifact, "Show a saved document", _READS),
)

TOOLS = {tool.name: tool for tool in _LISTED}
