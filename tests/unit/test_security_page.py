"""The threat model names tests that are there."""

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
NAMED = re.compile(r"`(tests/[\w/.]+)?(?:::(test_\w+))?`")


def named() -> list[tuple[str, str]]:
    """Files and tests, in their order; a test alone is one of the file that was named last."""
    found = []
    file = ""
    for match in NAMED.finditer((ROOT / "docs/security.md").read_text()):
        file = match[1] or file
        if match[1] or match[2]:
            found.append((file, match[2] or ""))
    return found


def test_each_test_that_is_named_exists() -> None:
    assert len(named()) > 40
    assert [one for one in named() if not _exists(*one)] == []


def _exists(file: str, test: str) -> bool:
    path = ROOT / file
    return path.is_dir() if not path.suffix else path.is_file() and f"def {test}" in path.read_text()
