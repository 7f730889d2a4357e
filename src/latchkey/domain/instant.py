"""A moment: always with its offset, and UTC wherever it is ours."""

from datetime import datetime
from typing import Annotated

from msgspec import Meta

Instant = Annotated[datetime, Meta(tz=True)]
"""RFC 3339 on every wire; the published schemas say `date-time`."""
