"""The query parameters of every listing."""

from typing import Annotated

from litestar.params import QueryParameter

LimitQuery = Annotated[int, QueryParameter(ge=1, le=200, description="How many items a page holds at most.")]
CursorQuery = Annotated[
    str | None, QueryParameter(max_length=500, description="`next_cursor` of the page before, as it was given.")
]
