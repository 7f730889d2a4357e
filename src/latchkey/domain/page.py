"""Pagination with cursors."""

from base64 import urlsafe_b64decode, urlsafe_b64encode
from itertools import accumulate
from typing import Annotated, Any, Generic, TypeVar

import msgspec
from msgspec import Meta, Struct

from latchkey.domain.errors import Invalid

T = TypeVar("T")

Limit = Annotated[int, Meta(ge=1, le=200, description="The maximum number of items in a page.")]
Cursor = Annotated[str, Meta(max_length=500, description="The `next_cursor` of the previous page, unchanged.")]

DEFAULT_LIMIT = 50

PAGE_BYTES = 2 * 1024 * 1024
"""A page ends with the item that reaches this many stored bytes, so it may have fewer items than `limit`."""

ALL_BYTES = 2**31 - 1
"""The limit in place of `PAGE_BYTES` where a turn is read whole."""

TURN_PAGE_BYTES = 39_000
"""A page for the token of a turn has at most this many bytes of JSON, unless its first item has more: the model of the
turn gets all of it, and the rest with `next_cursor`."""


class Page(Struct, Generic[T], frozen=True):
    """`next_cursor` is null on the last page."""

    items: list[T]
    next_cursor: str | None


class Window(Struct, frozen=True):
    """The requested page. A cursor holds a sort key and no user, so it cannot widen a listing."""

    limit: Limit = DEFAULT_LIMIT
    cursor: Cursor | None = None

    def decode_cursor(self, key: type[T]) -> T | None:
        """Return the sort key of the last item before this page. Raises `Invalid` for a cursor of another listing."""
        if self.cursor is None:
            return None
        try:
            return msgspec.json.decode(urlsafe_b64decode(self.cursor + "=" * (-len(self.cursor) % 4)), type=key)
        except (ValueError, msgspec.DecodeError) as error:
            raise Invalid.at("cursor", "is not a `next_cursor` of this listing") from error

    def to_page(self, items: list[T], key: Any, *, has_more: bool = False, max_bytes: int | None = None) -> Page[T]:
        """Make the page of up to `limit + 1` items. `key(item)` is the sort key for the cursor of the next page.

        `has_more` says that further items follow these, although they are not more than `limit`. `max_bytes` bounds
        the JSON of the page, which has one item at least.
        """
        count = self.limit if max_bytes is None else min(self.limit, _count_within(items, max_bytes))
        if len(items) <= count and not has_more:
            return Page(items, None)
        items = items[:count]
        return Page(items, urlsafe_b64encode(msgspec.json.encode(key(items[-1]))).rstrip(b"=").decode())


def _count_within(items: list[T], max_bytes: int) -> int:
    """Return how many of the items have at most `max_bytes` of JSON together, but at least 1."""
    sizes = accumulate(len(msgspec.json.encode(item)) + 1 for item in items)
    return max(1, sum(size <= max_bytes for size in sizes))
