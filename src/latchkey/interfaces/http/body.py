"""The strict edge for bodies: the right content type, JSON in UTF-8, and nothing that the type does not name."""

from functools import cache
from typing import Any, Generic, TypeVar

import msgspec
from litestar._openapi.schema_generation import SchemaCreator
from litestar.connection import ASGIConnection
from litestar.dto import AbstractDTO
from litestar.dto._backend import DTOBackend
from litestar.openapi.spec import Reference, Schema
from litestar.typing import FieldDefinition

from latchkey.domain.errors import UnsupportedMediaType
from latchkey.interfaces.errors import invalid

T = TypeVar("T")

MAX_BYTES = 2 * 1024 * 1024
JSON = "application/json"
MERGE_PATCH = "application/merge-patch+json"


class StrictBody(AbstractDTO[T], Generic[T]):
    """Decodes the `data` of a handler straight into its msgspec type, by that type's own rules.

    Litestar's decoding is lax ("5" passes for 5) and answers 500 for what is not UTF-8.
    """

    _kinds: dict[str, Any] = {}

    def decode_bytes(self, value: bytes) -> Any:
        """Raises `UnsupportedMediaType`, `Malformed` and `Invalid`."""
        _check_content_type(self.asgi_connection)
        kind = self._kinds[self.asgi_connection.route_handler.handler_id]
        try:
            return _decoder(kind).decode(value)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            raise invalid(error) from error

    @classmethod
    def create_for_field_definition(
        cls, field_definition: FieldDefinition, handler_id: str, backend_cls: type[DTOBackend] | None = None
    ) -> None:
        cls._kinds[handler_id] = field_definition.annotation

    @classmethod
    def create_openapi_schema(
        cls, field_definition: FieldDefinition, handler_id: str, schema_creator: SchemaCreator
    ) -> Reference | Schema:
        return schema_creator.for_field_definition(field_definition)

    @classmethod
    def generate_field_definitions(cls, model_type: type[Any]) -> Any:
        raise NotImplementedError  # for DTOs that make a second model; this one decodes the type itself

    @classmethod
    def detect_nested_field(cls, field_definition: FieldDefinition) -> bool:
        raise NotImplementedError


def _check_content_type(connection: ASGIConnection[Any, Any, Any, Any]) -> None:
    """RFC 7396 has a media type of its own for patches; plain JSON is taken for them too."""
    given = connection.headers.get("content-type", "").partition(";")[0].strip().lower()
    taken = (MERGE_PATCH, JSON) if connection.scope.get("method") == "PATCH" else (JSON,)
    if given not in taken:
        raise UnsupportedMediaType(f"Send the body as {' or '.join(taken)}, not {given or 'without a Content-Type'}.")


@cache
def _decoder(kind: Any) -> msgspec.json.Decoder[Any]:
    return msgspec.json.Decoder(kind)
