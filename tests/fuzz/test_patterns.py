"""The published patterns mean the same to whoever reads them: in Python, in JavaScript, and in Rust."""

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
def test_each_character_is_taken_or_refused_in_python_as_in_javascript(pattern: str) -> None:
    """One by one, all that Unicode has room for."""
    command: list[str | Path] = [node(), "-e", REFUSED_ALONE, json.dumps(pattern)]
    in_javascript = json.loads(subprocess.run(command, capture_output=True, check=True).stdout)
    compiled = re.compile(pattern)

    assert in_javascript == [point for point in range(0x110000) if not compiled.search(chr(point))]


@pytest.mark.parametrize("document", ["openapi.json", "mcp.json"])
def test_engines_that_match_in_utf_8_can_read_them_too(document: str) -> None:
    """Generated clients use such, and servers of models that hold an answer to a schema."""
    found = set(patterns(json.loads((DOCS / document).read_text())))
    validators = {one: jsonschema_rs.validator_for({"type": "string", "pattern": one}) for one in found}

    assert found >= {PLAIN, VISIBLE}
    assert [one for one in (PLAIN, VISIBLE) if not validators[one].is_valid("Buy 🥛\U0010ffff")] == []
    assert [one for one, validator in validators.items() if validator.is_valid("a\x00b")] == []
