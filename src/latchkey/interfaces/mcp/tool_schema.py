"""JSON Schema as MCP wants it: an object at the root, and no object open to fields that nobody named."""

import inspect
from collections.abc import Callable, Iterator
from operator import attrgetter
from typing import Any, get_type_hints

import msgspec
from msgspec import NODEFAULT, Struct
from msgspec.structs import FieldInfo

from latchkey.application.access import permission_of
from latchkey.domain.credentials import Scope
from latchkey.domain.errors import Invalid
from latchkey.interfaces.errors import invalid

_AT = "#/$defs/"


def schema_of(struct: Any) -> dict[str, Any]:
    """The schema (JSON Schema 2020-12) of a struct, with the structs inside it under `$defs`."""
    (root,), definitions = msgspec.json.schema_components([struct])
    schema: dict[str, Any] = definitions.pop(root["$ref"].removeprefix(_AT))
    del schema["title"]
    if definitions:
        schema["$defs"] = definitions
    closed: dict[str, Any] = _closed(schema)
    return closed


def _closed(schema: Any) -> Any:
    """The same, with every object closed: an answer has what the schema says and nothing else."""
    if isinstance(schema, list):
        return [_closed(part) for part in schema]
    if not isinstance(schema, dict):
        return schema
    closed = {word: _closed(part) for word, part in schema.items()}
    if closed.get("type") == "object" and "properties" in closed:
        closed["additionalProperties"] = False
    return closed


Field = tuple[str, Any, Any]


class ToolBinding(Struct, frozen=True):
    """A use case as a tool.

    The positional parameters after `work` are the tool's arguments, and the fields of one that is a struct
    stand beside the others. Keyword-only parameters are preconditions that only HTTP has: no tool has them.
    """

    use_case: Callable[..., Any]
    arguments: type[Struct]
    gather: tuple[Callable[[Any], Any], ...]
    description: str
    input_schema: dict[str, Any]
    output_schema: dict[str, Any]

    @classmethod
    def of(cls, use_case: Callable[..., Any]) -> "ToolBinding":
        hints = get_type_hints(use_case, include_extras=True)
        _, *parameters = inspect.signature(use_case).parameters.values()
        projected = [one for one in parameters if one.kind is not one.KEYWORD_ONLY]
        fields = [field for one in projected for field in _fields(one, hints[one.name])]
        arguments = msgspec.defstruct(use_case.__name__, fields, kw_only=True, forbid_unknown_fields=True)
        return cls(
            use_case=use_case,
            arguments=arguments,
            gather=tuple(_gathering(one.name, hints[one.name]) for one in projected),
            description=inspect.getdoc(use_case) or "",
            input_schema=schema_of(arguments),
            output_schema=schema_of(hints["return"]),
        )

    @property
    def name(self) -> str:
        return self.use_case.__name__

    def is_allowed(self, scope: Scope) -> bool:
        return scope.is_owner or permission_of(self.use_case).grant in scope.grants

    def bind(self, arguments: dict[str, Any]) -> list[Any]:
        """What to call the use case with. Raises `Invalid`, saying where, for arguments that break the schema."""
        try:
            given = msgspec.convert(arguments, self.arguments)
        except (msgspec.ValidationError, RecursionError) as error:
            raise invalid(error) from error
        except UnicodeEncodeError as error:
            raise Invalid.at("$", "Expected names without lone surrogates") from error
        return [gather(given) for gather in self.gather]


def _fields(parameter: inspect.Parameter, hint: Any) -> Iterator[Field]:
    if _is_struct(hint):
        yield from ((field.name, field.type, _default(field)) for field in msgspec.structs.fields(hint))
    else:
        required = parameter.default is parameter.empty
        yield parameter.name, hint, NODEFAULT if required else parameter.default


def _default(field: FieldInfo) -> Any:
    if field.default_factory is NODEFAULT:
        return field.default
    return msgspec.field(default_factory=field.default_factory)


def _gathering(name: str, hint: Any) -> Callable[[Any], Any]:
    """How to get one parameter of the use case from all arguments: its own field, or its struct put together."""
    if not _is_struct(hint):
        return attrgetter(name)
    names = [field.name for field in msgspec.structs.fields(hint)]
    return lambda given: hint(**{name: getattr(given, name) for name in names})


def _is_struct(hint: Any) -> bool:
    return isinstance(hint, type) and issubclass(hint, Struct)
