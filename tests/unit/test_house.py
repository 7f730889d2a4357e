"""The house rules that a program can check: sizes, and what no file may contain."""

import ast
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
FUNCTION_LINES = 40
PARAMETERS = 6
MODULE_LINES = {"src": 250, "migrations": 250, "tests": 400}
PROSE_LINES = {"README.md": 120, "docs/adr/*.md": 60}

REGISTRY = (
    r"index[-_]url|find[-_]links|https?://[^\s\"']*\.(?:whl|tar\.gz|tgz)|(?:pypi\.org|pythonhosted\.org)|/simple[/]"
)
MACHINE_PATH = r"(?:^|[^\w.~/:-])/(?:root|work|home|Users)/[A-Za-z]"
STRAY = re.compile(f"{REGISTRY}|{MACHINE_PATH}")

Function = ast.FunctionDef | ast.AsyncFunctionDef


def modules() -> list[Path]:
    return [path for room in MODULE_LINES for path in sorted((ROOT / room).rglob("*.py"))]


def functions(path: Path) -> Iterator[Function]:
    return (node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, Function))


def name(path: Path) -> str:
    return str(path.relative_to(ROOT))


def length(function: Function) -> int:
    """Lines from its `def` to its end: decorators say who calls it, not what it does."""
    return (function.end_lineno or function.lineno) - function.lineno + 1


def parameters(function: Function) -> int:
    """How many a caller may give: not `self` or `cls`."""
    found = [*function.args.posonlyargs, *function.args.args, *function.args.kwonlyargs]
    return len([one for one in found if one.arg not in {"self", "cls"}])


@pytest.mark.parametrize("path", modules(), ids=name)
def test_a_module_and_its_functions_are_small(path: Path) -> None:
    """Past these sizes a noun is hiding in them."""
    lines = len(path.read_text().splitlines())
    too_long = [f"{one.name}: {length(one)} lines" for one in functions(path) if length(one) > FUNCTION_LINES]
    too_wide = [f"{one.name}: {parameters(one)} parameters" for one in functions(path) if parameters(one) > PARAMETERS]

    assert lines <= MODULE_LINES[path.relative_to(ROOT).parts[0]]
    assert too_long == []
    assert too_wide == []


@pytest.mark.parametrize("pattern", PROSE_LINES)
def test_what_people_read_is_short(pattern: str) -> None:
    lengths = {name(path): len(path.read_text().splitlines()) for path in ROOT.glob(pattern)}

    assert {path: lines for path, lines in lengths.items() if lines > PROSE_LINES[pattern]} == {}


@pytest.mark.parametrize("path", sorted((ROOT / "src").rglob("__init__.py")), ids=name)
def test_a_package_is_only_a_place(path: Path) -> None:
    """Nothing happens by importing one."""
    assert path.read_text() == ""


def test_no_file_knows_a_registry_or_the_machine_it_was_written_on() -> None:
    """So that the lock, and everything else, is right on any machine and behind any mirror."""
    listed = subprocess.run(
        ["git", "-c", "safe.directory=*", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        check=True,
        capture_output=True,
        text=True,
    ).stdout.split("\0")
    texts = {file: (ROOT / file).read_text(errors="replace") for file in listed if (ROOT / file).is_file()}
    stray = [
        f"{file}:{number}: {line.strip()[:100]}"
        for file, text in texts.items()
        for number, line in enumerate(text.splitlines(), 1)
        if STRAY.search(line)
    ]

    assert len(texts) > 0
    assert stray == []
