"""The tools of docs/mcp.json, and which grant makes which of them available: a new tool is covered without an edit."""

import json
from typing import Any

from latchkey.domain.credentials import Grant
from tests.schemas import DOCS

TOOLS: dict[str, dict[str, Any]] = {tool["name"]: tool for tool in json.loads((DOCS / "mcp.json").read_text())["tools"]}
"""As `tools/list` shows them to the user, in its order."""


ALL_GRANTS = tuple(
    Grant(name) for name in json.loads((DOCS / "openapi.json").read_text())["components"]["schemas"]["Grant"]["enum"]
)
"""Every grant that a context token can carry."""

_NOUN_OF = {"remember": "note", "recall": "note", "forget": "note"}
"""The nouns of the tools whose names do not say them."""


def tools_granted_by(*grants: Grant) -> list[str]:
    """The names of the tools that a context token with these grants shows.

    Derived from published names and annotations, not from the permissions in the code: `tasks:write` makes the tools
    on tasks available that are not read-only.
    """
    return [name for name, tool in TOOLS.items() if any(_is_granted(tool, grant) for grant in grants)]


def _is_granted(tool: dict[str, Any], grant: Grant) -> bool:
    noun, _, access = grant.partition(":")
    is_read_only: bool = tool["annotations"]["readOnlyHint"]
    return noun.removesuffix("s") in _NOUN_OF.get(tool["name"], tool["name"]) and is_read_only == (access == "read")
