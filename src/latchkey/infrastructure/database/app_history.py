"""The revision files of an app: checked without running them, and errors in them as one sentence with file and line."""

import ast
import re
import traceback
from pathlib import Path
from typing import Any

from latchkey.domain.errors import Failure

_FILE = re.compile(r"(?P<number>\d{4})_\w+\.py")


class FaultyRevision(Failure):
    """A file in the app's folder of migrations is faulty. The text begins with its path and the line."""

    @classmethod
    def at(cls, path: Path, line: int | None, text: str) -> "FaultyRevision":
        return cls(f"{path}:{line or 1}: {text}")


def revision_files(folder: Path) -> list[Path]:
    """Return the revisions in the order of their numbers. A folder that does not exist has none."""
    return sorted(path for path in folder.glob("*.py") if not path.name.startswith((".", "__init__")))


def next_number(folder: Path) -> str:
    """Return the number of the next revision."""
    numbers = [int(path.name[:4]) for path in revision_files(folder)]
    return f"{max(numbers, default=0) + 1:04}"


def newest_compatible_with(folder: Path) -> str | None:
    """Return the oldest release that can use the newest revision's schema. None without a revision."""
    files = revision_files(folder)
    if not files:
        return None
    _, oldest = _assigned_values(files[-1]).get("compatible_with", (1, None))
    return str(oldest or files[-1].name[:4])


def check_revision_files(folder: Path) -> None:
    """Check that the files are one chain of revisions. Raises `FaultyRevision` for the first fault."""
    before: Path | None = None
    numbers: list[str] = []
    for path in revision_files(folder):
        match = _FILE.fullmatch(path.name)
        if match is None:
            raise FaultyRevision.at(path, 1, "this is no revision: name it like 0001_subject.py, or move it elsewhere.")
        if before and numbers[-1] == match["number"]:
            raise FaultyRevision.at(
                path, 1, f"{before.name} has the same number, which makes two heads: give one of them the next number."
            )
        _check_values(path, _assigned_values(path), match["number"], numbers)
        numbers.append(match["number"])
        before = path


def _check_values(path: Path, values: dict[str, tuple[int, Any]], number: str, earlier: list[str]) -> None:
    expected = {"revision": number, "down_revision": earlier[-1] if earlier else None}
    for name, value in expected.items():
        line, actual = values.get(name, (1, ...))
        if actual != value:
            fault = "is missing" if actual is ... else f"is {actual!r}"
            reason = "the number in the file's name" if name == "revision" else "the revision before this one"
            raise FaultyRevision.at(path, line, f"`{name}` {fault}: it must be {value!r}, {reason}.")
    line, oldest = values.get("compatible_with", (1, None))
    if oldest not in (None, number, *earlier):
        text = f"`compatible_with` is {oldest!r}: it must be the number of this or of an earlier revision, or None."
        raise FaultyRevision.at(path, line, text)
    if "upgrade" not in values:
        raise FaultyRevision.at(path, 1, "the function `upgrade` is missing.")


def _assigned_values(path: Path) -> dict[str, tuple[int, Any]]:
    """Return the names that the file defines, with their lines and constant values."""
    try:
        module = ast.parse(path.read_bytes(), path.name)
    except SyntaxError as error:
        raise FaultyRevision.at(path, error.lineno, f"the file is no valid Python: {error.msg}.") from error
    except (OSError, ValueError) as error:
        raise FaultyRevision.at(path, 1, f"the file cannot be read: {error}.") from error
    values: dict[str, tuple[int, Any]] = {}
    for statement in module.body:
        if isinstance(statement, ast.FunctionDef):
            values[statement.name] = (statement.lineno, ...)
        elif isinstance(statement, ast.Assign | ast.AnnAssign) and statement.value is not None:
            targets = statement.targets if isinstance(statement, ast.Assign) else [statement.target]
            value = _constant(statement.value)
            values |= {target.id: (statement.lineno, value) for target in targets if isinstance(target, ast.Name)}
    return values


def _constant(node: ast.expr) -> Any:
    """Return the value of a literal, and the source of any other expression."""
    try:
        return ast.literal_eval(node)
    except ValueError:
        return ast.unparse(node)


def line_in(folder: Path, error: BaseException) -> tuple[Path, int | None] | None:
    """Return the file of the folder, and its line, in which an error was raised. None if in no file of it."""
    paths = {str(path): path for path in revision_files(folder)}
    if isinstance(error, SyntaxError) and error.filename in paths:
        return paths[error.filename], error.lineno
    for cause in (error, error.__cause__):
        frames = traceback.extract_tb(cause.__traceback__) if cause else []
        for frame in reversed(frames):
            if frame.filename in paths:
                return paths[frame.filename], frame.lineno
    return None
