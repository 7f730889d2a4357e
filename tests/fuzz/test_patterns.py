"""The published patterns compile in every engine that clients use, and accept what the service accepts."""

import json
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema_rs
import pytest

from latchkey.domain.values import PLAIN, VISIBLE
from latchkey.interfaces.schemas import PORTABLE_PATTERNS
from tests.node import node
from tests.schemas import DOCS

REFUSED_ALONE = """
const pattern = new RegExp(JSON.parse(process.argv[1]), "u");
const refused = [];
for (let point = 0; point <= 0x10ffff; point++) if (!pattern.test(String.fromCodePoint(point))) refused.push(point);
console.log(JSON.stringify(refused));
"""


COMPILED_WITHOUT_UNICODE_MODE = """
const refused = [];
for (const pattern of JSON.parse(process.argv[1])) try { new RegExp(pattern); } catch { refused.push(pattern); }
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

    assert published >= ({*PORTABLE_PATTERNS.values()} if document == "openapi.json" else set())
    texts = [validators[pattern] for pattern in published & {*PORTABLE_PATTERNS.values()}]
    assert [validator for validator in texts if not validator.is_valid("Buy 🥛\U0010ffff")] == []
    assert [pattern for pattern, validator in validators.items() if validator.is_valid("a\x00b")] == []


@pytest.mark.parametrize("document", ["openapi.json", "mcp.json"])
def test_pattern_compiles_in_javascript_without_unicode_mode(document: str) -> None:
    """As zod, Mastra's MCP client and ajv with `unicodeRegExp: false` compile it."""
    published = sorted(set(patterns(json.loads((DOCS / document).read_text()))))
    command: list[str | Path] = [node(), "-e", COMPILED_WITHOUT_UNICODE_MODE, json.dumps(published)]

    assert json.loads(subprocess.run(command, capture_output=True, check=True).stdout) == []


@pytest.mark.parametrize("checked", [PLAIN, VISIBLE], ids=["plain", "visible"])
def test_published_pattern_accepts_every_character_that_the_service_accepts(checked: str) -> None:
    compiled, portable = re.compile(checked), re.compile(PORTABLE_PATTERNS[checked])

    assert [point for point in range(0x110000) if compiled.search(chr(point)) and not portable.search(chr(point))] == []
