"""The query parameters of every listing."""

import re
from collections.abc import Iterable
from functools import lru_cache
from typing import Annotated, Any, get_args
from urllib.parse import parse_qsl
from uuid import UUID

from litestar.connection import Request
from litestar.enums import ParamType
from litestar.handlers import BaseRouteHandler
from litestar.params import ParameterKwarg, QueryParameter
from msgspec import Struct

from latchkey.domain.errors import Invalid, NotFound
from latchkey.domain.page import Cursor, Limit


def _like(domain_type: Any) -> QueryParameter:
    """A query parameter with the rules of a domain type, which Litestar does not read from the type itself."""
    (meta,) = domain_type.__metadata__
    return QueryParameter(ge=meta.ge, le=meta.le, max_length=meta.max_length, description=meta.description)


LimitQuery = Annotated[int, _like(Limit)]
CursorQuery = Annotated[str | None, _like(Cursor)]


_INTEGER = re.compile(r"-?[0-9]+")
_ALWAYS_ONCE = frozenset({b"content-type"})
_SHORT = 100
_SHOWN = 100
"""So much of a name is told back to whoever made it up."""


class _Declared(Struct, frozen=True, eq=False):
    """What an operation takes: the annotations by the names of query parameters, and those of headers."""

    query: dict[str, Any]
    headers: dict[bytes, Any]

    @property
    def offer(self) -> str:
        return f"this takes {', '.join(f'`{name}`' for name in self.query)}" if self.query else "this takes none"


def check_parameters(request: Request[Any, Any, Any]) -> None:
    """Raises `Invalid`, naming the parameter, and `NotFound` for an id in the path that is written in another way."""
    declared = _declared(request.route_handler)
    if query := request.scope["query_string"]:
        (_check_query if len(query) > _SHORT else _check_query_once)(query, declared)
    _check_headers(request.scope["headers"], declared)
    for id in request.path_params.values():
        if isinstance(id, UUID) and f"/{id}/" not in f"{request.scope['path'].lower()}/":
            raise NotFound("There is nothing at this path.")


def _check_query(query: bytes, declared: _Declared) -> None:
    seen: set[str] = set()
    for name, value in parse_qsl(query.decode("latin-1"), keep_blank_values=True):
        if name not in declared.query:
            raise Invalid.at(name[:_SHOWN], f"Expected no such parameter: {declared.offer}")
        if name in seen:
            raise Invalid.at(name, "Expected it once, and it is there twice")
        seen.add(name)
        _check_spelling(name, value, declared.query[name])


_check_query_once = lru_cache(256)(_check_query)
"""Most listings are asked for with the same few queries: 5 us of a call. What is refused is looked at each time."""


def _check_headers(given: Iterable[tuple[bytes, bytes]], declared: _Declared) -> None:
    seen: set[bytes] = set()
    for name, value in given:
        if name in declared.headers or name in _ALWAYS_ONCE:
            if name in seen:
                raise Invalid.at(name.decode(), "Expected this header once, and it is there twice")
            seen.add(name)
            _check_spelling(name.decode(), value.decode("latin-1"), declared.headers.get(name))


def _check_spelling(name: str, value: str, annotation: Any) -> None:
    kinds = get_args(annotation) or (annotation,)
    if int in kinds and not _INTEGER.fullmatch(value):
        raise Invalid.at(name, "Expected an integer, in digits")
    if str not in kinds and value.lower() == "null":
        raise Invalid.at(name, "Expected a value: leave it out where there is none")


@lru_cache(256)
def _declared(handler: BaseRouteHandler) -> _Declared:
    fields = [
        (field.kwarg_definition.param_type, field.kwarg_definition.name or field.name, field.annotation)
        for field in handler.parsed_fn_signature.parameters.values()
        if isinstance(field.kwarg_definition, ParameterKwarg)
    ]
    return _Declared(
        {name: annotation for where, name, annotation in fields if where is ParamType.QUERY},
        {name.lower().encode(): annotation for where, name, annotation in fields if where is ParamType.HEADER},
    )
