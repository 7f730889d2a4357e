"""Value types that several nouns share: times and texts, with the rules that the schemas publish."""

import re
from datetime import datetime
from functools import lru_cache
from typing import Annotated
from zoneinfo import ZoneInfo

from msgspec import Meta

Instant = Annotated[datetime, Meta(tz=True)]
"""A time with an offset, RFC 3339 in JSON. Latchkey's own times are in UTC."""


# The service checks these patterns. Many other engines cannot compile them: `interfaces/schemas.py` publishes others.
_ANY = "\\u0001-\\ud7ff\\ue000-\U0010ffff"
_BLANK = r"\t-\r\u001c-\u0020\u0085\u00a0\u1680\u2000-\u200a\u2028\u2029\u202f\u205f\u3000"
_VISIBLE = (
    r"\u0001-\u0008\u000e-\u001b!-\u0084\u0086-\u009f\u00a1-\u167f\u1681-\u1fff\u200b-\u2027\u202a-\u202e"
    "\\u2030-\\u205e\\u2060-\\u2fff\\u3001-\\ud7ff\\ue000-\U0010ffff"
)

PLAIN = f"^[{_ANY}]*$"
"""Unicode text without NUL (PostgreSQL cannot store it) and without lone surrogates (UTF-8 cannot encode them)."""

VISIBLE = f"^[{_BLANK}]*[{_VISIBLE}][{_ANY}]*$"
"""Like `PLAIN`, with at least one character that is not white space."""

PRINTABLE = "^[ -~\\u00a0-\\ud7ff\\ue000-\U0010ffff]*\\Z"
"""Unicode text without control characters, such as a newline at its end, and without lone surrogates."""

Title = Annotated[str, Meta(min_length=1, max_length=200, pattern=VISIBLE)]
Description = Annotated[str, Meta(max_length=10_000, pattern=PLAIN)]
MessageText = Annotated[str, Meta(min_length=1, max_length=32_000, pattern=VISIBLE)]

MAX_TIME_ZONE_CHARS = 64
TimeZoneName = Annotated[
    str,
    Meta(
        min_length=1,
        max_length=MAX_TIME_ZONE_CHARS,
        description="A time zone of the IANA database.",
        examples=["Europe/Berlin"],
    ),
]
_TIME_ZONE = re.compile(r"(?!posix/|right/)[A-Z][A-Za-z0-9_+-]*(/[A-Za-z0-9_+-]+){0,2}\Z")


@lru_cache(256)
def find_time_zone(name: str) -> ZoneInfo | None:
    """Return the time zone of this name in the IANA database; None if there is none."""
    try:
        return ZoneInfo(name) if len(name) <= MAX_TIME_ZONE_CHARS and _TIME_ZONE.match(name) else None
    except (LookupError, ValueError, OSError):
        return None
