"""Limits for the code: sizes of modules and functions, and text that no file may contain."""

import ast
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
FUNCTION_LINES = 50
PARAMETERS = 6
MODULE_LINES = {"src": 400, "migrations": 400, "bench": 400, "tests": 500}
PROSE_LINES = {"README.md": 120, "docs/adr/*.md": 60}

REGISTRY = (
    r"index[-_]url|find[-_]links|https?://[^\s\"']*\.(?:whl|tar\.gz|tgz)|(?:pypi\.org|pythonhosted\.org)|/simple[/]"
)
MACHINE_PATH = r"(?:^|[^\w.~/:-])/(?:root|work|home|Users)/[A-Za-z]"
FORBIDDEN = re.compile(f"{REGISTRY}|{MACHINE_PATH}")

Function = ast.FunctionDef | ast.AsyncFunctionDef


def modules() -> list[Path]:
    paths = [path for folder in MODULE_LINES for path in sorted((ROOT / folder).rglob("*.py"))]
    return [path for path in paths if "node_modules" not in path.parts]


def functions(path: Path) -> Iterator[Function]:
    return (node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, Function))


def name(path: Path) -> str:
    return str(path.relative_to(ROOT))


def length(function: Function) -> int:
    """Return the number of lines from `def` to the end, without decorators."""
    return (function.end_lineno or function.lineno) - function.lineno + 1


def parameters(function: Function) -> int:
    """Return the number of parameters without `self`, `cls`, and the services that Litestar injects into handlers."""
    arguments = [*function.args.posonlyargs, *function.args.args, *function.args.kwonlyargs]
    return len([argument for argument in arguments if argument.arg not in {"self", "cls"} and not is_service(argument)])


def is_service(argument: ast.arg) -> bool:
    """Whether the parameter is annotated as a dependency."""
    return argument.annotation is not None and ast.unparse(argument.annotation).startswith("NamedDependency[")


@pytest.mark.parametrize("path", modules(), ids=name)
def test_module_and_function_sizes_are_limited(path: Path) -> None:
    lines = len(path.read_text().splitlines())
    too_long = [
        f"{function.name}: {length(function)} lines"
        for function in functions(path)
        if length(function) > FUNCTION_LINES
    ]
    too_wide = [
        f"{function.name}: {parameters(function)} parameters"
        for function in functions(path)
        if parameters(function) > PARAMETERS
    ]

    assert lines <= MODULE_LINES[path.relative_to(ROOT).parts[0]]
    assert too_long == []
    assert too_wide == []


@pytest.mark.parametrize("pattern", PROSE_LINES)
def test_documentation_pages_are_short(pattern: str) -> None:
    lengths = {name(path): len(path.read_text().splitlines()) for path in ROOT.glob(pattern)}

    assert {path: lines for path, lines in lengths.items() if lines > PROSE_LINES[pattern]} == {}


PUBLIC_FACES = {ROOT / "src" / "latchkey" / part / "__init__.py" for part in (".", "testing")}


@pytest.mark.parametrize("path", sorted({*(ROOT / "src").rglob("__init__.py")} - PUBLIC_FACES), ids=name)
def test_package_init_files_are_empty(path: Path) -> None:
    assert path.read_text() == ""


def test_no_file_contains_registry_urls_or_paths_of_one_machine() -> None:
    """The locks, and everything else, must work on any machine and behind any mirror."""
    listed = subprocess.run(
        ["git", "-c", "safe.directory=*", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        check=True,
        capture_output=True,
        text=True,
    ).stdout.split("\0")
    texts = {file: (ROOT / file).read_text(errors="replace") for file in listed if (ROOT / file).is_file()}
    matches = [
        f"{file}:{number}: {line.strip()[:100]}"
        for file, text in texts.items()
        for number, line in enumerate(text.splitlines(), 1)
        if FORBIDDEN.search(line)
    ]

    assert len(texts) > 0
    assert matches == []
