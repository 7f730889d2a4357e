"""Schema libraries of other programs compile every published schema."""

import json
import subprocess
from typing import Any

from tests.interop.check_counter import Checks
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
    patterns = patterns_in(json.loads((DOCS / "openapi.json").read_text()))
    schemas = {pattern: {"type": "string", "pattern": pattern} for pattern in patterns}

    assert schemas
    assert compile_schemas(schemas) == {"refusals": [], "compiled": CONSUMERS * len(schemas)}
    checks.passed("schema libraries", CONSUMERS * len(schemas))


def test_unportable_pattern_is_refused_by_every_consumer() -> None:
    result = compile_schemas({"inline flag": {"type": "string", "pattern": "(?i)x"}})

    assert [refusal.partition(":")[0] for refusal in result["refusals"]] == ["ajv", "zod", "zod-from-json-schema"]


def compile_schemas(schemas: dict[str, Any]) -> Any:
    """Return the refusals and the number of compiled schemas."""
    folder = installed(FOLDER / "schema_consumers")
    done = subprocess.run(
        [node(), folder / "compile_schemas.mjs"],
        input=json.dumps(schemas),
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
        env=environment(),
    )
    return json.loads(done.stdout)


def patterns_in(node: Any) -> set[str]:
    """Return the values of `pattern` anywhere in a document."""
    if isinstance(node, list):
        return set().union(*map(patterns_in, node))
    if not isinstance(node, dict):
        return set()
    own = {node["pattern"]} if isinstance(node.get("pattern"), str) else set()
    return own.union(*map(patterns_in, node.values()))
