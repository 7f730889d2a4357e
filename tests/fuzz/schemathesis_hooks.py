"""Hooks of Schemathesis, in addition to schemathesis.toml."""

from typing import Any

import schemathesis

from latchkey.domain.values import PLAIN, VISIBLE
from latchkey.interfaces.schemas import PORTABLE_PATTERNS

_SIMPLE = {PORTABLE_PATTERNS[PLAIN]: None, PORTABLE_PATTERNS[VISIBLE]: r"[^\s\u001c-\u001f]"}
"""Replacements for patterns of whole texts: generating long texts from those takes minutes."""


@schemathesis.hook
def before_load_schema(_: schemathesis.HookContext, raw_schema: dict[str, Any]) -> None:
    """Simplify the patterns. NUL and lone surrogates are not generated anyway: `test_invalid_input` sends them."""
    _simplify(raw_schema)


def _simplify(node: Any) -> None:
    if isinstance(node, dict):
        if node.get("pattern") in _SIMPLE:
            simple = _SIMPLE[node.pop("pattern")]
            node |= {} if simple is None else {"pattern": simple}
        node = list(node.values())
    for part in node if isinstance(node, list) else []:
        _simplify(part)
