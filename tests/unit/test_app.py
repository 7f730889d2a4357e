"""Faulty apps stop the start with file, line and cure."""

import re
from pathlib import Path
from textwrap import dedent
from typing import Any

import pytest

import latchkey
from latchkey.app import AppError, load
from latchkey.bootstrap.registry import BUILT_IN, Registry

TOOL = """
@tool("books:write", title="Add a book")
async def add_book(uow: UnitOfWork, title: str) -> Book:
    '''Add a book.'''
    raise NotImplementedError
"""
HEADER = """
from msgspec import Struct
from latchkey import *
from latchkey import App, UnitOfWork, tool, requires

class Book(Struct):
    title: str
"""


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> Any:
    """Write a module, and return what `load` needs: its name is new for each test."""
    monkeypatch.chdir(tmp_path)
    name = f"app_{abs(hash(request.node.name))}"

    def write(body: str, app: str = "tools=[add_book], grants=['books:write']") -> str:
        text = HEADER.replace("from latchkey import *\n", "") + dedent(body) + f"\napp = App(name='library', {app})\n"
        Path(f"{name}.py").write_text(text)
        return f"{name}:app"

    return write


def faults_of(path: str) -> str:
    with pytest.raises(AppError) as caught:
        Registry.of(*BUILT_IN, load(path))
    return str(caught.value)


def test_app_without_faults_is_loaded(module: Any) -> None:
    registry = Registry.of(*BUILT_IN, load(module(TOOL)))

    assert "add_book" in registry.tools
    assert "books:write" in registry.grants.names


@pytest.mark.parametrize(
    ("body", "app", "expected"),
    [
        (TOOL.replace("'''Add a book.'''", ""), None, ":8: the tool `add_book` has no docstring"),
        (
            TOOL.replace("title: str)", "title)"),
            None,
            "the tool `add_book` cannot be offered: `add_book` cannot",
        ),
        (TOOL.replace(": UnitOfWork", ""), None, ":8: the tool `add_book` must have a `UnitOfWork` or a `ToolContext`"),
        (TOOL.replace("-> Book", "-> str"), None, "it returns <class 'str'>, not a struct"),
        (
            TOOL.replace("add_book", "add_task"),
            "tools=[add_task]",
            "two tools `add_task`, the other one at ",
        ),
        (TOOL.replace("-> Book", ""), None, "it has no return annotation: it must return a struct"),
        (
            TOOL,
            "tools=[add_book]",
            "the tool `add_book` needs the grant 'books:write', which nobody has registered",
        ),
        (TOOL, "tools=[add_book], grants=['books']", "the grant 'books' must be `NOUN:read` or `NOUN:write`"),
        (TOOL, "tools=[add_book], grants=['books:write', 'tasks:read']", "there are two grants `tasks:read`"),
        (TOOL.replace('@tool("books:write", title="Add a book")', ""), None, "decorate it with `tool`"),
        (TOOL.replace("async def", "def"), None, ":8: TypeError: `add_book` ("),
        (TOOL.replace("async def", "def"), None, ".py:8) cannot be a use case, because it is not async: make it"),
        (TOOL.replace('title="Add a book"', 'title=" "'), None, "the tool `add_book` has no title"),
        (TOOL.replace('a book")', 'a book", timeout_s=0)'), None, "`add_book` must have a positive `timeout_s`"),
        ("import missing_module" + TOOL, None, ":7: ModuleNotFoundError: No module named 'missing_module'"),
        (TOOL, "agents={'openai': print}", "there are two agents `openai`: rename one of them"),
        (TOOL, "agents={'a b': print}", "the agent 'a b' must have an identifier as its name"),
        (TOOL, "controllers=[Book]", "is neither a Litestar controller, nor a reference table, nor an assistant"),
        ("def broken(:\n" + TOOL, None, ":7: SyntaxError"),
    ],
)
def test_faulty_app_is_refused_with_file_and_line(module: Any, body: str, app: str | None, expected: str) -> None:
    text = faults_of(module(body) if app is None else module(body, app))

    assert text.startswith("The app cannot be used:")
    assert expected in text
    assert ".py:" in text or "LATCHKEY_APP" in text


def test_duplicate_tool_name_is_reported_with_both_places(module: Any) -> None:
    text = faults_of(module(TOOL + "first = add_book\n" + TOOL, "tools=[first, add_book], grants=['books:write']"))

    assert re.search(r"\.py:14: there are two tools `add_book`, the other one at \w+\.py:8: rename one of them", text)


def test_grant_of_wrong_form_is_reported_once(module: Any) -> None:
    text = faults_of(module(TOOL.replace("books:write", "books"), "tools=[add_book], grants=['books']"))

    assert text.count("must be `NOUN:read` or `NOUN:write`") == 1


TABLES = """
from uuid import UUID
from sqlalchemy import Column, MetaData, Uuid
from sqlalchemy.orm import Mapped
from latchkey import Entity, EntityRepository, Instant, Repository, entity_table, reference_table

metadata = MetaData()
racks = entity_table("racks", metadata=metadata)
woods = reference_table("woods", Column("id", Uuid(), primary_key=True), metadata=metadata)

class Rack(Struct, frozen=True):
    id: UUID
    version: int
    created_at: Instant
    updated_at: Instant

class Racks(Repository[Rack], table=racks): ...
"""


@pytest.mark.parametrize(
    ("app", "expected"),
    [
        ("reference_tables=[woods]", ":23: `Racks` uses the table `racks`, which is not in `entities` of the app"),
        ("entities=[racks]", ":15: `woods` uses the table `woods`, which is not in `reference_tables` of the app"),
    ],
)
def test_table_that_app_does_not_list_is_refused(module: Any, app: str, expected: str) -> None:
    text = faults_of(module(TABLES, app))

    assert expected in text
    assert text.count("uses the table") == 1


def test_missing_folder_of_migrations_is_refused_unless_it_is_to_be_made(module: Any) -> None:
    path = module(TABLES, "entities=[racks], reference_tables=[woods], migrations='migration'")

    text = faults_of(path)

    assert ".py:25: the folder migration, which is `migrations` of the app, does not exist" in text
    assert load(path, needs_migrations=False).name == "library"


def test_app_that_lists_its_tables_is_loaded(module: Any) -> None:
    app = load(module(TABLES, "entities=[racks], reference_tables=[woods]"))

    assert app.schema.table_names == ["racks", "woods"]


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("nothing_like_this:app", "LATCHKEY_APP (nothing_like_this:app): ModuleNotFoundError"),
        (
            "tests.apps.library:missing",
            "library.py:1: LATCHKEY_APP is tests.apps.library:missing, and `missing` is",
        ),
    ],
)
def test_app_that_does_not_exist_is_refused(path: str, expected: str) -> None:
    assert expected in faults_of(path)


def test_every_public_name_is_typed_and_can_be_imported() -> None:
    stub = Path(latchkey.__file__).with_suffix(".pyi").read_text()

    assert [name for name in dir(latchkey) if f" as {name}\n" not in stub] == []
    assert len(dir(latchkey)) == stub.count(" as ")
    assert all(getattr(latchkey, name) is not None for name in dir(latchkey))
    with pytest.raises(AttributeError, match="no public name 'nonsense'"):
        latchkey.nonsense  # type: ignore[attr-defined]  # noqa: B018
