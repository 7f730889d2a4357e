"""Deriving a tool from a use case: name, schemas, arguments and permission."""

from collections.abc import Awaitable, Callable
from functools import partial, wraps
from typing import Annotated, Any
from uuid import UUID

import pytest
from msgspec import UNSET, Meta, Struct, UnsetType, field
from msgspec.structs import replace

from latchkey.application.access import owner_only, requires
from latchkey.domain.credentials import ARTIFACTS_READ, ARTIFACTS_WRITE, BUILT_IN_GRANTS, ContextTokenId, Scope, UserId
from latchkey.domain.errors import Invalid
from latchkey.domain.page import Page
from latchkey.domain.ports import UnitOfWork
from latchkey.interfaces.mcp.tools import ToolBinding

ShelfId = int


class NewBook(Struct, frozen=True):
    title: Annotated[str, Meta(min_length=1)]
    tags: list[str] = field(default_factory=list)
    note: str | None | UnsetType = UNSET


class Book(Struct, frozen=True):
    """A book."""

    title: str
    tags: list[str]


@requires(ARTIFACTS_WRITE)
async def add_book(uow: UnitOfWork, shelf_id: ShelfId, new: NewBook, copies: int = 1, *, version: int = 0) -> Book:
    """Add a book to a shelf."""
    raise NotImplementedError(uow, shelf_id, new, copies, version)


@requires(ARTIFACTS_READ)
async def list_books(uow: UnitOfWork) -> Page[Book]:
    """List the books."""
    raise NotImplementedError(uow)


@owner_only("write")
async def delete_books(uow: UnitOfWork) -> Book:
    """Delete all books."""
    raise NotImplementedError(uow)


UOW: Any = object()
ADD_BOOK = ToolBinding.of(add_book)


def test_tool_has_name_and_docstring_of_use_case() -> None:
    assert (ADD_BOOK.name, ADD_BOOK.description) == ("add_book", "Add a book to a shelf.")


def test_tool_arguments_include_the_fields_of_a_struct_parameter() -> None:
    """Keyword-only parameters are preconditions of HTTP, and no arguments."""
    assert list(ADD_BOOK.input_schema["properties"]) == ["shelf_id", "title", "tags", "note", "copies"]
    assert ADD_BOOK.input_schema["required"] == ["shelf_id", "title"]
    assert ADD_BOOK.input_schema["properties"]["title"] == {"type": "string", "minLength": 1}
    assert ADD_BOOK.input_schema["additionalProperties"] is False


def test_tool_output_schema_allows_no_additional_properties_at_any_depth() -> None:
    schema = ToolBinding.of(list_books).output_schema

    assert schema["type"] == "object"
    assert schema["additionalProperties"] is False
    assert schema["$defs"]["Book"]["additionalProperties"] is False


@pytest.mark.parametrize(
    ("arguments", "bound"),
    [
        ({"shelf_id": 7, "title": "Emma"}, [7, NewBook("Emma"), 1]),
        ({"shelf_id": 7, "title": "Emma", "note": None, "copies": 2}, [7, NewBook("Emma", [], None), 2]),
        ({"shelf_id": 7, "title": "Emma", "tags": ["a"]}, [7, NewBook("Emma", ["a"], UNSET), 1]),
    ],
)
def test_tool_arguments_are_bound_to_the_parameters(arguments: dict[str, Any], bound: list[Any]) -> None:
    """An omitted argument differs from null."""
    assert ADD_BOOK.bind(arguments) == bound


@pytest.mark.parametrize(
    ("arguments", "path"),
    [
        ({"shelf_id": "7", "title": "Emma"}, "$.shelf_id"),
        ({"shelf_id": 7, "title": ""}, "$.title"),
        ({"shelf_id": 7, "title": "Emma", "tags": ["a", 5]}, "$.tags[1]"),
        ({"shelf_id": 7, "title": "Emma", "version": 1}, "$"),
        ({"shelf_id": 7, "title": "Emma", "\ud800": 1}, "$"),
        ({}, "$"),
    ],
    ids=str,
)
def test_tool_invalid_arguments_raise_with_path(arguments: dict[str, Any], path: str) -> None:
    with pytest.raises(Invalid) as caught:
        ADD_BOOK.bind(arguments)

    assert caught.value.members["errors"][0]["path"] == path  # type: ignore[index]


def test_tool_is_allowed_for_its_grant_and_for_the_user() -> None:
    user = Scope(UserId("me"))
    token = ContextTokenId(UUID(int=1))
    writer = Scope(UserId("me"), frozenset({ARTIFACTS_WRITE}), token)
    reader = Scope(UserId("me"), frozenset({ARTIFACTS_READ}), token)

    assert [ADD_BOOK.is_allowed(scope) for scope in (user, writer, reader)] == [True, True, False]


def test_tool_is_allowed_for_a_token_of_certain_tools_only_among_them() -> None:
    scopes = [
        Scope(UserId("me"), frozenset(BUILT_IN_GRANTS), ContextTokenId(UUID(int=1)), tools=frozenset(tools))
        for tools in (["add_book"], ["count_books"], [])
    ]

    assert [ADD_BOOK.is_allowed(scope) for scope in scopes] == [True, False, False]
    assert not ToolBinding.of(delete_books).is_allowed(replace(scopes[0], tools=frozenset(["delete_books"])))


def test_tool_of_owner_only_use_case_is_allowed_for_no_token() -> None:
    everything = Scope(UserId("me"), frozenset(BUILT_IN_GRANTS), ContextTokenId(UUID(int=1)))

    assert not ToolBinding.of(delete_books).is_allowed(everything)
    assert ToolBinding.of(delete_books).is_allowed(Scope(UserId("me")))


def logged(use_case: Callable[..., Awaitable[Any]]) -> Callable[..., Awaitable[Any]]:
    """A decorator as a team might write it."""

    @wraps(use_case)
    async def wrapper(*args: Any, **kwargs: Any) -> Any:
        return await use_case(*args, **kwargs)

    return wrapper


def forgetful(use_case: Callable[..., Awaitable[Any]]) -> Callable[..., Awaitable[Any]]:
    """A decorator without `functools.wraps`, so that signature, name and permission are lost."""

    async def wrapper(*args: Any, **kwargs: Any) -> Any:
        return await use_case(*args, **kwargs)

    return wrapper


@requires(ARTIFACTS_READ)
async def get_book(uow: UnitOfWork, *ids: int) -> Book:
    """Get a book by any number of ids."""
    raise NotImplementedError(uow, ids)


@requires(ARTIFACTS_READ)
async def count_books(uow: UnitOfWork) -> int:
    """Count the books."""
    raise NotImplementedError(uow)


def test_tool_of_decorated_use_case_is_the_tool_of_the_use_case() -> None:
    tool = ToolBinding.of(logged(add_book))

    assert (tool.name, tool.description) == (ADD_BOOK.name, ADD_BOOK.description)
    assert (tool.input_schema, tool.output_schema) == (ADD_BOOK.input_schema, ADD_BOOK.output_schema)
    assert not tool.is_allowed(Scope(UserId("me"), frozenset(), ContextTokenId(UUID(int=1))))


async def test_tool_of_partial_use_case_has_the_remaining_arguments() -> None:
    """A bound parameter is no argument; the call binds it."""
    calls: list[tuple[Any, ...]] = []

    @requires(ARTIFACTS_WRITE)
    async def copy_book(uow: UnitOfWork, title: str, copies: int, tags: str = "") -> Book:
        """Copy a book."""
        calls.append((uow, title, copies, tags))
        return Book(title, [])

    tool = ToolBinding.of(partial(copy_book, copies=2))
    await tool.use_case(UOW, *tool.bind({"title": "Emma"}))

    assert (tool.name, tool.description) == ("copy_book", "Copy a book.")
    assert list(tool.input_schema["properties"]) == ["title"]
    assert calls == [(UOW, "Emma", 2, "")]


@pytest.mark.parametrize(
    ("use_case", "problem"),
    [
        (forgetful(add_book), "declares no permission"),
        (get_book, r"parameter `\*ids: int`"),
        (count_books, "returns"),
        (partial(list_books, UOW), "unit of work"),
        (partial(add_book, UOW), "unit of work"),
    ],
    ids=[
        "decorated without wraps",
        "variable arguments",
        "result is not a struct",
        "bound unit of work",
        "bound unit of work before others",
    ],
)
def test_tool_of_unusable_use_case_is_refused_when_registered(use_case: Callable[..., Any], problem: str) -> None:
    with pytest.raises(TypeError, match=problem):
        ToolBinding.of(use_case)
