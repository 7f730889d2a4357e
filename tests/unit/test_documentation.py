"""What the documentation links to and names exists: files, headings, tests, code and settings."""

import re
from functools import cache
from pathlib import Path

import pytest

from latchkey.config import VARIABLES

ROOT = Path(__file__).parents[2]
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"), *(ROOT / "bench").glob("*.md")])
FOLDERS = ("src", "tests", "migrations", "bench")
FENCE = re.compile(r"^```.*?^```$", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"\]\((?!https?:)([^)\s]+)\)")
HEADING = re.compile(r"^#+ (.+)$", re.MULTILINE)
TEST = re.compile(r"`(tests/[\w/.]+)?(?:::(test_\w+))?`")
SOURCE = re.compile(r"`((?:[\w.]+/)*\w+\.(?:py|toml|mjs|js))`")
CLASS = re.compile(r"`([A-Z][a-z0-9]+(?:[A-Z]+[a-z0-9]*)+)(?:\.\w+)?(?:\(\))?`")
SETTING = re.compile(r"\bLATCHKEY_[A-Z_]+\b")

pages = pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))


@pages
def test_links_resolve_to_files_and_headings(page: Path) -> None:
    broken = []
    for link in LINK.findall(prose(page)):
        path, _, anchor = link.partition("#")
        target = page.parent / path if path else page
        if not target.exists() or (anchor and anchor not in anchors(target)):
            broken.append(link)

    assert broken == []


@pages
def test_named_tests_exist(page: Path) -> None:
    """`::test_name` alone is a test of the file that was named last."""
    missing = []
    file = ""
    for match in TEST.finditer(prose(page)):
        file = match[1] or file
        if (match[1] or match[2]) and not exists(file, match[2] or ""):
            missing.append(match[0])

    assert missing == []


@pytest.mark.parametrize(
    ("path", "source"),
    [
        ("README.md", "ai_sdk/src/Chat.tsx"),
        ("docs/ai-sdk.md", "ai_sdk/src/Chat.tsx"),
        ("docs/ai-sdk.md", "ai_sdk/src/Approvals.tsx"),
        ("docs/openai-api.md", "openai/src/main.ts"),
        ("docs/ag-ui.md", "copilotkit/src/Chat.tsx"),
    ],
)
def test_documentation_shows_the_page_that_is_tested_in_a_browser(path: str, source: str) -> None:
    page = (ROOT / "tests/browser/projects" / source).read_text()

    assert f"```{Path(source).suffix[1:]}\n{page}```" in (ROOT / path).read_text()


def test_threat_model_names_tests() -> None:
    text = (ROOT / "docs/threat-model.md").read_text()

    assert len([match for match in TEST.finditer(text) if match[1] or match[2]]) > 40


@pages
def test_named_source_files_and_classes_exist(page: Path) -> None:
    text = prose(page)
    missing = {name for name in SOURCE.findall(text) if not any(path.endswith(f"/{name}") for path in files())}
    missing |= {name for name in CLASS.findall(text) if name not in words()}

    assert missing == set()


@pages
def test_named_settings_exist(page: Path) -> None:
    assert set(SETTING.findall(page.read_text())) <= set(VARIABLES) | {"LATCHKEY_"}


def test_settings_page_lists_every_setting() -> None:
    text = (ROOT / "docs/settings.md").read_text()

    assert [name for name in VARIABLES if f"`{name}`" not in text] == []


@cache
def prose(page: Path) -> str:
    """The text of a page without its code blocks."""
    return FENCE.sub("", page.read_text())


@cache
def anchors(page: Path) -> set[str]:
    """The anchors of a page's headings, as GitHub makes them."""
    headings = HEADING.findall(prose(page))
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def exists(file: str, test: str) -> bool:
    path = ROOT / file
    return path.exists() and (not test or f"def {test}(" in path.read_text())


@cache
def files() -> list[str]:
    """Every source file, as `/` and its path from the root; a page may leave leading folders out."""
    paths = [*ROOT.glob("*.toml"), *(path for folder in FOLDERS for path in (ROOT / folder).rglob("*.*"))]
    return [f"/{path.relative_to(ROOT)}" for path in paths]


@cache
def words() -> set[str]:
    """Every word in the code: a class that a page names is one of them."""
    sources = [path for folder in FOLDERS for path in (ROOT / folder).rglob("*.py")]
    text = "\n".join(path.read_text() for path in [*sources, ROOT / "docs/openapi.json", ROOT / "pyproject.toml"])
    return set(re.findall(r"\w+", text))
