"""Schema libraries of other programs compile every published schema."""

import json
import subprocess
from pathlib import Path
from typing import Any

from tests.interop.check_counter import Checks
from tests.interop.clients.subprocess_client import INTEROP_PYTHON
from tests.interop.conftest import FOLDER
from tests.node import environment, installed, node
from tests.schemas import DOCS

CONSUMERS = 3


def test_tool_schemas_compile_in_zod_and_ajv_without_unicode_mode(checks: Checks) -> None:
    tools = json.loads((DOCS / "mcp.json").read_text())["tools"]
    schemas = {f"{tool['name']} {key}": tool[key] for tool in tools for key in ("inputSchema", "outputSchema")}

    assert compile_schemas(schemas) == {"refusals": [], "compiled": CONSUMERS * len(schemas)}
    checks.passed("schema libraries", CONSUMERS * len(schemas))


def test_openapi_patterns_compile_in_zod_and_ajv_without_unicode_mode(checks: Checks) -> None:
    patterns = published_patterns()
    schemas = {pattern: {"type": "string", "pattern": pattern} for pattern in patterns}

    assert schemas
    assert compile_schemas(schemas) == {"refusals": [], "compiled": CONSUMERS * len(schemas)}
    checks.passed("schema libraries", CONSUMERS * len(schemas))


def test_published_patterns_compile_in_re2(checks: Checks) -> None:
    patterns = published_patterns()

    assert compile_in_re2(patterns) == {"refusals": [], "compiled": len(patterns)}
    checks.passed("schema libraries", len(patterns))


def test_unportable_pattern_is_refused_by_every_consumer() -> None:
    result = compile_schemas({"inline flag": {"type": "string", "pattern": "(?i)x"}})
    in_re2 = compile_in_re2(["^(?!a)", r"\u0000", "a"])

    assert (len(in_re2["refusals"]), in_re2["compiled"]) == (2, 1)

    assert [refusal.partition(":")[0] for refusal in result["refusals"]] == ["ajv", "zod", "zod-from-json-schema"]


def compile_schemas(schemas: dict[str, Any]) -> Any:
    """Return the refusals and the number of compiled schemas."""
    folder = installed(FOLDER / "schema_consumers")
    return run([node(), folder / "compile_schemas.mjs"], schemas)


def compile_in_re2(patterns: list[str]) -> Any:
    """Return the refusals and the number of compiled patterns."""
    return run([INTEROP_PYTHON, FOLDER / "programs/compile_re2.py"], patterns)


def run(command: list[Path], document: Any) -> Any:
    """Run a program that reads a JSON document and writes one."""
    done = subprocess.run(
        command,
        input=json.dumps(document),
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
        env=environment(),
    )
    return json.loads(done.stdout)


def published_patterns() -> list[str]:
    """Return every pattern of the OpenAPI document and of the tools."""
    return sorted(patterns_in([json.loads((DOCS / name).read_text()) for name in ("openapi.json", "mcp.json")]))


def patterns_in(node: Any) -> set[str]:
    """Return the values of `pattern` anywhere in a document."""
    if isinstance(node, list):
        return set().union(*map(patterns_in, node))
    if not isinstance(node, dict):
        return set()
    own = {node["pattern"]} if isinstance(node.get("pattern"), str) else set()
    return own.union(*map(patterns_in, node.values()))
