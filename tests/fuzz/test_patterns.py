"""The published patterns accept the same texts in Python, JavaScript and Rust."""

import json
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema_rs
import pytest

from latchkey.domain.values import PLAIN, VISIBLE
from tests.node import node
from tests.schemas import DOCS

REFUSED_ALONE = """
const pattern = new RegExp(JSON.parse(process.argv[1]), "u");
const refused = [];
for (let point = 0; point <= 0x10ffff; point++) if (!pattern.test(String.fromCodePoint(point))) refused.push(point);
console.log(JSON.stringify(refused));
"""


def patterns(node: Any) -> Iterator[str]:
    if isinstance(node, dict):
        if isinstance(node.get("pattern"), str):
            yield node["pattern"]
        node = list(node.values())
    for part in node if isinstance(node, list) else []:
        yield from patterns(part)


@pytest.mark.parametrize("pattern", [PLAIN, VISIBLE], ids=["plain", "visible"])
def test_pattern_accepts_the_same_characters_in_python_and_javascript(pattern: str) -> None:
    """Each code point of Unicode alone."""
    command: list[str | Path] = [node(), "-e", REFUSED_ALONE, json.dumps(pattern)]
    in_javascript = json.loads(subprocess.run(command, capture_output=True, check=True).stdout)
    compiled = re.compile(pattern)

    assert in_javascript == [point for point in range(0x110000) if not compiled.search(chr(point))]


@pytest.mark.parametrize("document", ["openapi.json", "mcp.json"])
def test_pattern_is_valid_for_utf_8_engines(document: str) -> None:
    """Generated clients and model servers with structured output use such engines."""
    published = set(patterns(json.loads((DOCS / document).read_text())))
    validators = {pattern: jsonschema_rs.validator_for({"type": "string", "pattern": pattern}) for pattern in published}

    assert published >= {PLAIN, VISIBLE}
    assert [pattern for pattern in (PLAIN, VISIBLE) if not validators[pattern].is_valid("Buy 🥛\U0010ffff")] == []
    assert [pattern for pattern, validator in validators.items() if validator.is_valid("a\x00b")] == []
