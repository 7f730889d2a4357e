"""Deriving a tool from a use case: input and output schema, and binding of arguments to parameters."""

import inspect
from collections.abc import Callable, Iterator
from operator import attrgetter
from typing import Any, get_type_hints

import msgspec
from msgspec import NODEFAULT, Struct
from msgspec.structs import FieldInfo

from latchkey.application.access import name_of, permission_of
from latchkey.domain.credentials import Scope
from latchkey.domain.errors import Invalid
from latchkey.interfaces.errors import invalid

_DEFINITIONS = "#/$defs/"


def schema_of(struct: Any) -> dict[str, Any]:
    """Return the JSON Schema (2020-12) of a struct as MCP requires it: an object at the root, others under `$defs`.

    No object allows additional properties. Raises `TypeError` if the type is not a struct.
    """
    (root,), definitions = msgspec.json.schema_components([struct])
    if "$ref" not in root:
        raise TypeError(f"{struct!r} is not a struct.")
    schema: dict[str, Any] = definitions.pop(root["$ref"].removeprefix(_DEFINITIONS))
    del schema["title"]
    if definitions:
        schema["$defs"] = definitions
    closed: dict[str, Any] = _closed(schema)
    return closed


def _closed(schema: Any) -> Any:
    if isinstance(schema, list):
        return [_closed(part) for part in schema]
    if not isinstance(schema, dict):
        return schema
    closed = {keyword: _closed(part) for keyword, part in schema.items()}
    if closed.get("type") == "object" and "properties" in closed:
        closed["additionalProperties"] = False
    return closed


Field = tuple[str, Any, Any]


class ToolBinding(Struct, frozen=True):
    """A use case as a tool.

    The arguments of the tool are the positional parameters after the unit of work; the fields of a struct parameter
    are arguments of their own. Keyword-only parameters are preconditions of HTTP, and no arguments.
    """

    name: str
    use_case: Callable[..., Any]
    arguments: type[Struct]
    getters: tuple[Callable[[Any], Any], ...]
    description: str
    input_schema: dict[str, Any]
    output_schema: dict[str, Any]

    @classmethod
    def of(cls, use_case: Callable[..., Any]) -> "ToolBinding":
        """Derive the tool, also of a decorated use case, or of a `functools.partial` with keyword arguments.

        Raises `TypeError` for a use case that cannot be a tool; the text says why.
        """
        permission_of(use_case)
        name, function = name_of(use_case), inspect.unwrap(getattr(use_case, "func", use_case))
        hints = get_type_hints(function, include_extras=True)
        parameters = _parameters(use_case, next(iter(inspect.signature(function).parameters), ""), name, hints)
        fields = [field for parameter in parameters for field in _fields(parameter, hints[parameter.name])]
        arguments = msgspec.defstruct(name, fields, kw_only=True, forbid_unknown_fields=True)
        try:
            output_schema = schema_of(hints["return"])
        except (KeyError, TypeError) as error:
            raise TypeError(f"`{name}` cannot be a tool: it returns {hints.get('return')!r}, not a struct.") from error
        return cls(
            name=name,
            use_case=use_case,
            arguments=arguments,
            getters=tuple(_getter(parameter.name, hints[parameter.name]) for parameter in parameters),
            description=inspect.getdoc(function) or "",
            input_schema=schema_of(arguments),
            output_schema=output_schema,
        )

    def is_allowed(self, scope: Scope) -> bool:
        """Whether a credential with this scope may call the tool."""
        return scope.is_owner or permission_of(self.use_case).grant in scope.grants

    def bind(self, arguments: dict[str, Any]) -> list[Any]:
        """Return the positional arguments of the use case. Raises `Invalid` if the arguments break the input schema."""
        try:
            converted = msgspec.convert(arguments, self.arguments)
        except (msgspec.ValidationError, RecursionError) as error:
            raise invalid(error) from error
        except UnicodeEncodeError as error:
            raise Invalid.at("$", "Expected names without lone surrogates") from error
        return [get(converted) for get in self.getters]


def _parameters(use_case: Callable[..., Any], uow: str, name: str, hints: dict[str, Any]) -> list[inspect.Parameter]:
    """Return the parameters that are arguments of the tool; `uow` is the name of the first parameter."""
    parameters = [*inspect.signature(use_case).parameters.values()]
    if not parameters or parameters[0].name != uow:
        raise TypeError(
            f"`{name}` cannot be a tool: its first parameter must be the unit of work, which must not be bound."
        )
    positional = [parameter for parameter in parameters[1:] if parameter.kind is not parameter.KEYWORD_ONLY]
    for parameter in positional:
        if parameter.kind is not parameter.POSITIONAL_OR_KEYWORD or parameter.name not in hints:
            raise TypeError(f"`{name}` cannot be a tool: its parameter `{parameter}` cannot be an argument.")
    return positional


def _fields(parameter: inspect.Parameter, hint: Any) -> Iterator[Field]:
    if _is_struct(hint):
        yield from ((field.name, field.type, _default(field)) for field in msgspec.structs.fields(hint))
    else:
        is_required = parameter.default is parameter.empty
        yield parameter.name, hint, NODEFAULT if is_required else parameter.default


def _default(field: FieldInfo) -> Any:
    if field.default_factory is NODEFAULT:
        return field.default
    return msgspec.field(default_factory=field.default_factory)


def _getter(name: str, hint: Any) -> Callable[[Any], Any]:
    """Return a function that gets the value of a parameter from all arguments."""
    if not _is_struct(hint):
        return attrgetter(name)
    names = [field.name for field in msgspec.structs.fields(hint)]
    return lambda arguments: hint(**{name: getattr(arguments, name) for name in names})


def _is_struct(hint: Any) -> bool:
    return isinstance(hint, type) and issubclass(hint, Struct)
