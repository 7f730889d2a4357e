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
    """All of it, page after page; every page but the last one is full."""
    found: list[T] = []
    cursor = None
    while True:
        page = await listing(Window(limit, cursor))
        found += page.items
        if page.next_cursor is None:
            return found
        assert len(page.items) == limit
        assert page.next_cursor != cursor
        cursor = page.next_cursor


async def assert_pages(listing: Listing[T], expected: list[T]) -> None:
    """In the expected order, complete and without repetition, for pages of every size."""
    assert expected
    for limit in range(1, len(expected) + 2):
        assert await walk(listing, limit) == expected


async def assert_refuses(listing: Listing[T], *of_other_listings: str | None) -> None:
    """Cursors that this listing has never given."""
    for cursor in (*FORGERIES.values(), *of_other_listings):
        assert cursor is not None
        with pytest.raises(Invalid, match="cursor: is not a `next_cursor` of this listing"):
            await listing(Window(2, cursor))
