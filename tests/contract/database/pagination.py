"""Assertions that hold for every listing with cursors."""

from collections.abc import Awaitable, Callable
from typing import TypeVar

import pytest

from latchkey.domain.errors import Invalid
from latchkey.domain.page import Page, Window

T = TypeVar("T")
Listing = Callable[[Window], Awaitable[Page[T]]]

FORGERIES = {
    "no base64": "é",
    "no JSON": "bm9wZQ",
    "null": "bnVsbA",
    "a number": "MTIz",
    "an empty list": "W10",
    "nothing": "",
    "a lone id": "IjAxOWExZjg4LTQ2OGQtNzdhOC05ODBlLTlmNDYwOGUxZGZiZiI",
    "long": "A" * 500,
}


async def walk(listing: Listing[T], limit: int) -> list[T]:
    """Return all items, page after page; every page but the last must be full."""
    items: list[T] = []
    cursor = None
    while True:
        page = await listing(Window(limit, cursor))
        items += page.items
        if page.next_cursor is None:
            return items
        assert len(page.items) == limit
        assert page.next_cursor != cursor
        cursor = page.next_cursor


async def assert_pages(listing: Listing[T], expected: list[T]) -> None:
    """Assert that all items come in this order, without gaps or duplicates, with every page size."""
    assert expected
    for limit in range(1, len(expected) + 2):
        assert await walk(listing, limit) == expected


async def assert_refuses(listing: Listing[T], *of_other_listings: str | None) -> None:
    """Assert that the listing refuses malformed cursors and those of other listings."""
    for cursor in (*FORGERIES.values(), *of_other_listings):
        assert cursor is not None
        with pytest.raises(Invalid, match="cursor: is not a `next_cursor` of this listing"):
            await listing(Window(2, cursor))
