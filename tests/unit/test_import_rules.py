"""The import rules that import-linter cannot express."""

import ast
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

SOURCE = Path(__file__).parents[2] / "src"
ALLOWED = {"latchkey", "msgspec", *sys.stdlib_module_names}


def imports(package: str) -> Iterator[tuple[str, str]]:
    """Yield the place and the full name of each import in that package."""
    for path in sorted((SOURCE / "latchkey" / package).rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            place = f"{path.relative_to(SOURCE)}:{getattr(node, 'lineno', 0)}"
            if isinstance(node, ast.Import):
                yield from ((place, alias.name) for alias in node.names)
            elif isinstance(node, ast.ImportFrom):
                yield from ((place, f"{node.module}.{alias.name}") for alias in node.names)


def within(imported: str, package: str) -> bool:
    return imported == package or imported.startswith(f"{package}.")


@pytest.mark.parametrize("package", ["domain", "application"])
def test_domain_and_application_import_only_the_standard_library_and_msgspec(package: str) -> None:
    """Frameworks and drivers can be replaced without changing the core."""
    found = list(imports(package))

    assert found
    assert [(place, name) for place, name in found if name.split(".")[0] not in ALLOWED] == []


def test_mcp_server_is_imported_by_interfaces_only() -> None:
    """The agents are MCP clients."""
    others = [found for package in ("domain", "application", "infrastructure") for found in imports(package)]

    assert [(place, name) for place, name in others if within(name, "mcp.server")] == []


def test_no_import_is_for_type_checking_only() -> None:
    texts = {path: path.read_text() for path in SOURCE.rglob("*.py")}

    assert [path for path, text in texts.items() if "TYPE_CHECKING" in text] == []
