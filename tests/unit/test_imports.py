"""The import rules that import-linter cannot say."""

import ast
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

SOURCE = Path(__file__).parents[2] / "src"
INSIDE = {"latchkey", "msgspec", *sys.stdlib_module_names}


def imports(room: str) -> Iterator[tuple[str, str]]:
    """Each import in that folder: where it stands, and the full name of what it takes."""
    for path in sorted((SOURCE / "latchkey" / room).rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            place = f"{path.relative_to(SOURCE)}:{getattr(node, 'lineno', 0)}"
            if isinstance(node, ast.Import):
                yield from ((place, alias.name) for alias in node.names)
            elif isinstance(node, ast.ImportFrom):
                yield from ((place, f"{node.module}.{alias.name}") for alias in node.names)


def within(imported: str, package: str) -> bool:
    return imported == package or imported.startswith(f"{package}.")


@pytest.mark.parametrize("room", ["domain", "application"])
def test_the_inside_needs_only_python_and_msgspec(room: str) -> None:
    """No framework and no driver, so that each of them can go without taking the inside along."""
    found = list(imports(room))

    assert found
    assert [one for one in found if one[1].split(".")[0] not in INSIDE] == []


def test_only_the_interfaces_serve_mcp() -> None:
    """The agents are clients of it."""
    outside = [one for room in ("domain", "application", "infrastructure") for one in imports(room)]

    assert [one for one in outside if within(one[1], "mcp.server")] == []


def test_nothing_is_imported_for_the_type_checker_alone() -> None:
    """What a module's types need, the module needs."""
    texts = {path: path.read_text() for path in SOURCE.rglob("*.py")}

    assert [path for path, text in texts.items() if "TYPE_CHECKING" in text] == []
