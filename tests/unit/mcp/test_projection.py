"""How a use case becomes a tool."""

from typing import Annotated, Any
from uuid import UUID

import pytest
from msgspec import UNSET, Meta, Struct, UnsetType, field

from latchkey.application.access import owner_only, requires
from latchkey.domain.credentials import ContextTokenId, Grant, Scope, UserId
from latchkey.domain.errors import Invalid
from latchkey.domain.page import Page
from latchkey.domain.ports import UnitOfWork
from latchkey.interfaces.mcp.tool_schema import ToolBinding

ShelfId = int


class NewBook(Struct, frozen=True):
    title: Annotated[str, Meta(min_length=1)]
    tags: list[str] = field(default_factory=list)
    note: str | None | UnsetType = UNSET


class Book(Struct, frozen=True):
    """A book."""

    title: str
    tags: list[str]


@requires(Grant.ARTIFACTS_WRITE)
async def shelve_book(uow: UnitOfWork, shelf_id: ShelfId, new: NewBook, copies: int = 1, *, version: int = 0) -> Book:
    """Put a book on a shelf."""
    raise NotImplementedError(uow, shelf_id, new, copies, version)


@requires(Grant.ARTIFACTS_READ)
async def list_books(uow: UnitOfWork) -> Page[Book]:
    """List the books."""
    raise NotImplementedError(uow)


@owner_only("write")
async def burn_books(uow: UnitOfWork) -> Book:
    """Burn them."""
    raise NotImplementedError(uow)


SHELVE = ToolBinding.of(shelve_book)


def test_its_name_and_docstring_are_the_tools() -> None:
    assert (SHELVE.name, SHELVE.description) == ("shelve_book", "Put a book on a shelf.")


def test_the_fields_of_a_struct_stand_beside_the_other_arguments() -> None:
    """And preconditions that only HTTP has are not there."""
    assert list(SHELVE.input_schema["properties"]) == ["shelf_id", "title", "tags", "note", "copies"]
    assert SHELVE.input_schema["required"] == ["shelf_id", "title"]
    assert SHELVE.input_schema["properties"]["title"] == {"type": "string", "minLength": 1}
    assert SHELVE.input_schema["additionalProperties"] is False


def test_an_answer_of_structs_within_structs_is_closed_throughout() -> None:
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
def test_arguments_are_bound_to_its_parameters(arguments: dict[str, Any], bound: list[Any]) -> None:
    """What was left out is told from what is null."""
    assert SHELVE.bind(arguments) == bound


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
def test_bad_arguments_are_told_with_their_path(arguments: dict[str, Any], path: str) -> None:
    with pytest.raises(Invalid) as caught:
        SHELVE.bind(arguments)

    assert caught.value.members["errors"][0]["path"] == path  # type: ignore[index]


def test_it_opens_to_its_grant_and_to_the_person() -> None:
    person = Scope(UserId("me"))
    token = ContextTokenId(UUID(int=1))
    writer = Scope(UserId("me"), frozenset({Grant.ARTIFACTS_WRITE}), token)
    reader = Scope(UserId("me"), frozenset({Grant.ARTIFACTS_READ}), token)

    assert [SHELVE.is_allowed(scope) for scope in (person, writer, reader)] == [True, True, False]


def test_what_only_the_person_may_do_opens_to_no_token() -> None:
    everything = Scope(UserId("me"), frozenset(Grant), ContextTokenId(UUID(int=1)))

    assert not ToolBinding.of(burn_books).is_allowed(everything)
    assert ToolBinding.of(burn_books).is_allowed(Scope(UserId("me")))
