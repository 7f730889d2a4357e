"""Text that every wire and every database can carry, with the limits that the schemas publish."""

from typing import Annotated

from msgspec import Meta

PLAIN = r"^[^\u0000\ud800-\udfff]*$"
"""Unicode without NUL (PostgreSQL cannot store it) and without lone surrogates (UTF-8 cannot)."""

VISIBLE = r"^\s*[^\s\u0000\ud800-\udfff][^\u0000\ud800-\udfff]*$"
"""The same, and not blank."""

Title = Annotated[str, Meta(min_length=1, max_length=200, pattern=VISIBLE)]
Description = Annotated[str, Meta(max_length=10_000, pattern=PLAIN)]
MessageText = Annotated[str, Meta(min_length=1, max_length=32_000, pattern=VISIBLE)]
