"""Pagination with cursors."""

from base64 import urlsafe_b64decode, urlsafe_b64encode
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

    def to_page(self, items: list[T], key: Any, *, has_more: bool = False) -> Page[T]:
        """Make the page of up to `limit + 1` items. `key(item)` is the sort key for the cursor of the next page.

        `has_more` says that further items follow these, although they are not more than `limit`.
        """
        if len(items) <= self.limit and not has_more:
            return Page(items, None)
        items = items[: self.limit]
        return Page(items, urlsafe_b64encode(msgspec.json.encode(key(items[-1]))).rstrip(b"=").decode())
