"""What Schemathesis is told beside its configuration."""

from typing import Any

import schemathesis

from latchkey.domain.values import PLAIN, VISIBLE

_CHEAP = {PLAIN: None, VISIBLE: r"[^\s\u001c-\u001f]"}
"""Texts of up to a million characters are not to be made from patterns that list all of Unicode: that takes minutes."""


@schemathesis.hook
def before_load_schema(_: schemathesis.HookContext, raw_schema: dict[str, Any]) -> None:
    """NUL and lone surrogates are not generated in any case: `test_bad_input` sends them."""
    _cheapen(raw_schema)


def _cheapen(node: Any) -> None:
    if isinstance(node, dict):
        if node.get("pattern") in _CHEAP:
            cheap = _CHEAP[node.pop("pattern")]
            node |= {} if cheap is None else {"pattern": cheap}
        node = list(node.values())
    for part in node if isinstance(node, list) else []:
        _cheapen(part)
