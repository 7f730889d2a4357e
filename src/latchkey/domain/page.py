"""One page of a listing, and where the next one starts."""

from base64 import urlsafe_b64decode, urlsafe_b64encode
from typing import Annotated, Any, Generic, TypeVar

import msgspec
from msgspec import Meta, Struct

from latchkey.domain.errors import Invalid

T = TypeVar("T")

Limit = Annotated[int, Meta(ge=1, le=200, description="How many items a page holds at most.")]
Cursor = Annotated[str, Meta(max_length=500, description="`next_cursor` of the page before, as it was given.")]

DEFAULT_LIMIT = 50


class Page(Struct, Generic[T], frozen=True):
    """`next_cursor` is null on the last page."""

    items: list[T]
    next_cursor: str | None


class Window(Struct, frozen=True):
    """Which page is asked for. The cursor bounds a listing, and cannot widen it: it names no user."""

    limit: Limit = DEFAULT_LIMIT
    cursor: Cursor | None = None

    def decode_cursor(self, key: type[T]) -> T | None:
        """The sort key of the item before this page. Raises `Invalid` for a cursor that this listing never gave."""
        if self.cursor is None:
            return None
        try:
            return msgspec.json.decode(urlsafe_b64decode(self.cursor + "=" * (-len(self.cursor) % 4)), type=key)
        except (ValueError, msgspec.DecodeError) as error:
            raise Invalid.at("cursor", "is not a `next_cursor` of this listing") from error

    def to_page(self, found: list[T], key: Any) -> Page[T]:
        """The page made of up to `limit + 1` items found; `key(item)` is what the next one starts after."""
        if len(found) <= self.limit:
            return Page(found, None)
        items = found[: self.limit]
        return Page(items, urlsafe_b64encode(msgspec.json.encode(key(items[-1]))).rstrip(b"=").decode())
