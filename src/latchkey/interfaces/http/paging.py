"""The query parameters of every listing."""

from typing import Annotated, Any

from litestar.params import QueryParameter

from latchkey.domain.page import Cursor, Limit


def _like(domain_type: Any) -> QueryParameter:
    """A query parameter with the rules of a domain type, which Litestar does not read from the type itself."""
    (meta,) = domain_type.__metadata__
    return QueryParameter(ge=meta.ge, le=meta.le, max_length=meta.max_length, description=meta.description)


LimitQuery = Annotated[int, _like(Limit)]
CursorQuery = Annotated[str | None, _like(Cursor)]
