"""A moment: always with its offset, and UTC wherever it is ours."""

from datetime import datetime
from typing import Annotated

from msgspec import Meta

Instant = Annotated[datetime, Meta(tz=True)]
"""RFC 3339 on every wire; the published schemas say `date-time`."""


# What is allowed is listed, and not what is refused: engines that match in UTF-8 (of Rust, Go, and of models that are
# held to a schema) know no surrogates, and no two of them mean the same by \s. The last character stands as itself,
# because each engine writes its escape differently.
_ANY = "\\u0001-\\ud7ff\\ue000-\U0010ffff"
_BLANK = r"\t-\r\u001c-\u0020\u0085\u00a0\u1680\u2000-\u200a\u2028\u2029\u202f\u205f\u3000"
_VISIBLE = (
    r"\u0001-\u0008\u000e-\u001b!-\u0084\u0086-\u009f\u00a1-\u167f\u1681-\u1fff\u200b-\u2027\u202a-\u202e"
    "\\u2030-\\u205e\\u2060-\\u2fff\\u3001-\\ud7ff\\ue000-\U0010ffff"
)

PLAIN = f"^[{_ANY}]*$"
"""Unicode without NUL (PostgreSQL cannot store it) and without lone surrogates (UTF-8 cannot)."""

VISIBLE = f"^[{_BLANK}]*[{_VISIBLE}][{_ANY}]*$"
"""The same, and not blank."""

Title = Annotated[str, Meta(min_length=1, max_length=200, pattern=VISIBLE)]
Description = Annotated[str, Meta(max_length=10_000, pattern=PLAIN)]
MessageText = Annotated[str, Meta(min_length=1, max_length=32_000, pattern=VISIBLE)]
