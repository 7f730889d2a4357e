"""Tools: use cases as MCP tools with schemas from their signatures, and the handlers that list and call them."""

import inspect
import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from operator import attrgetter
from typing import Any, get_type_hints

import msgspec
from mcp import MCPError
from mcp_types import INVALID_PARAMS, CallToolRequestParams, PaginatedRequestParams
from msgspec import NODEFAULT, Struct
from msgspec.structs import FieldInfo, replace

from latchkey.application.access import ToolDeclaration, declaration_of, function_of, name_of, permission_of
from latchkey.application.approval_requests import NOT_APPROVED
from latchkey.application.dispatcher import Dispatcher
from latchkey.application.external_calls import ExternalCallExecutor, ExternalTool
from latchkey.application.tool_calls import TOOL_BUG, ToolCallExecutor
from latchkey.application.turns.approvals import BoundTool
from latchkey.domain.credentials import Owner, Scope
from latchkey.domain.errors import Declined, Failure, Forbidden, Invalid, NotFound
from latchkey.domain.ports import ToolBug, ToolCallContext
from latchkey.domain.tool_call import ExternalCallId, ToolInvocation, ToolOutcome, encode_arguments
from latchkey.interfaces.errors import check_storable, invalid
from latchkey.interfaces.mcp.input_requests import ApprovalRequests, can_ask
from latchkey.interfaces.mcp.principal import (
    PRINCIPAL,
    Context,
    HandlerError,
    Principal,
    Result,
    complete,
    error_boundary,
)
from latchkey.interfaces.mcp.tool_results import checked
from latchkey.interfaces.schemas import for_models

_DEFINITIONS = "#/$defs/"


def schema_of(struct: Any) -> dict[str, Any]:
    """Return the JSON Schema (2020-12) of a struct as MCP requires it: an object at the root, others under `$defs`.

    It is published for models, see `for_models`; the service checks every limit. Raises `TypeError` if the type is
    not a struct.
    """
    (root,), definitions = msgspec.json.schema_components([struct])
    if "$ref" not in root:
        raise TypeError(f"{struct!r} is not a struct.")
    schema: dict[str, Any] = definitions.pop(root["$ref"].removeprefix(_DEFINITIONS))
    del schema["title"]
    if definitions:
        schema["$defs"] = definitions
    published: dict[str, Any] = for_models(schema)
    return published


Field = tuple[str, Any, Any]


class ToolBinding(Struct, frozen=True):
    """A use case as a tool.

    The arguments of the tool are the positional parameters after the first; the fields of a struct parameter are
    arguments of their own. Keyword-only parameters are preconditions of HTTP, and no arguments. `is_outside` says that
    it runs outside a transaction: its first parameter is a `ToolContext`.
    """

    name: str
    use_case: Callable[..., Any]
    arguments: type[Struct]
    getters: tuple[Callable[[Any], Any], ...]
    description: str
    input_schema: dict[str, Any]
    output_schema: dict[str, Any]
    result_type: Any
    is_outside: bool = False

    @classmethod
    def of(cls, use_case: Callable[..., Any]) -> "ToolBinding":
        """Derive the tool, also of a decorated use case, or of a `functools.partial` with keyword arguments.

        Raises `TypeError` for a use case that cannot be a tool; the text says why.
        """
        permission_of(use_case)
        name, function = name_of(use_case), inspect.unwrap(getattr(use_case, "func", use_case))
        hints = get_type_hints(function, include_extras=True)
        first = next(iter(inspect.signature(function).parameters), "")
        parameters = _parameters(use_case, first, name, hints)
        fields = [field for parameter in parameters for field in _fields(parameter, hints[parameter.name])]
        arguments = msgspec.defstruct(name, fields, kw_only=True, forbid_unknown_fields=True)
        if "return" not in hints:
            raise TypeError(f"`{name}` cannot be a tool: it has no return annotation: it must return a struct.")
        try:
            output_schema = schema_of(hints["return"])
        except TypeError as error:
            raise TypeError(f"`{name}` cannot be a tool: it returns {hints['return']!r}, not a struct.") from error
        return cls(
            name=name,
            use_case=use_case,
            arguments=arguments,
            getters=tuple(_getter(parameter.name, hints[parameter.name]) for parameter in parameters),
            description=inspect.getdoc(function) or "",
            input_schema=schema_of(arguments),
            output_schema=output_schema,
            result_type=hints["return"],
            is_outside=_is_context(hints.get(first)),
        )

    def is_allowed(self, scope: Scope) -> bool:
        """Whether a credential with this scope may call the tool."""
        return permission_of(self.use_case).is_satisfied_by(scope)

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


def _is_context(hint: Any) -> bool:
    return isinstance(hint, type) and issubclass(hint, ToolCallContext)


def _is_struct(hint: Any) -> bool:
    return isinstance(hint, type) and issubclass(hint, Struct)


TextOf = Callable[[dict[str, Any]], str]

_MARKS_OF_UNSTORABLE = (b"\\u0000", "\ufffd".encode())
"""In encoded arguments: NUL, and what replaces a lone surrogate. Without them the arguments need no check."""

DEFAULT_TIMEOUT_S = 30.0
"""For a tool outside a transaction that declares no `timeout_s`."""

IS_WAITING = "latchkey/waiting"
"""The key of `_meta` in the result of a turn's call that waits for the user."""

MAY_ASK = "latchkey/approval"
"""The key of `_meta` in the listing of a tool that asks the user before it runs, always or with some arguments."""

CALL_ID_KEYS = ("latchkey/callId", "claudecode/toolUseId")
"""The keys of `_meta` under which clients send their own id of a call."""


class Tool(Struct, frozen=True):
    """A use case that models may call, and its entry in `tools/list`.

    - `external`: how it runs outside a transaction; None for a tool that runs in one.
    - `text`: renders the text content of the result; the default is the structured content as JSON.
    """

    binding: ToolBinding
    listing: dict[str, Any]
    declaration: ToolDeclaration
    external: ExternalTool | None = None
    text: TextOf | None = None

    @property
    def name(self) -> str:
        """The name of the tool, which is the name of its use case."""
        return self.binding.name

    @property
    def title(self) -> str:
        """The title of the tool, for people."""
        return self.declaration.title

    @property
    def timeout_s(self) -> float:
        """How many seconds a call may take in addition to those of its transactions."""
        return 0.0 if self.external is None else self.external.timeout_s


def bind_tool(tools: dict[str, Tool], name: str, arguments: Any) -> BoundTool:
    """Return a tool with the arguments of a stored call. Raises `NotFound` and `Invalid`."""
    tool = tools.get(name)
    if tool is None:
        raise NotFound.of("tool")
    return BoundTool(tool.binding.use_case, tool.binding.bind(arguments), tool.external)


def create_tools(use_cases: Iterable[Callable[..., Any]]) -> dict[str, Tool]:
    """Return the tools by name, in this order. Each use case is declared with `tool`.

    Raises `TypeError` for a use case that cannot be a tool.
    """
    tools = [_tool(use_case) for use_case in use_cases]
    return {tool.name: tool for tool in tools}


def _tool(use_case: Callable[..., Any]) -> Tool:
    binding, declaration, permission = ToolBinding.of(use_case), declaration_of(use_case), permission_of(use_case)
    if not _is_built_in(use_case):
        binding = replace(binding, use_case=checked(use_case, function_of(use_case), binding.result_type))
    timeout_s = declaration.options.get("timeout_s", DEFAULT_TIMEOUT_S)
    listing = {
        "name": binding.name,
        "title": declaration.title,
        "description": binding.description,
        "inputSchema": binding.input_schema,
        "outputSchema": binding.output_schema,
        "annotations": declaration.annotations(is_read=permission.mode == "read", is_outside=binding.is_outside),
    }
    if declaration.options.get("approval"):
        listing["_meta"] = {MAY_ASK: True}
    return Tool(
        binding,
        listing,
        declaration,
        ExternalTool(binding.use_case, timeout_s) if binding.is_outside else None,
        _artifact_marker if permission.creates_artifact else None,
    )


def _is_built_in(use_case: Callable[..., Any]) -> bool:
    """Whether it is a use case of Latchkey, whose results need no check when they are returned."""
    return function_of(use_case).__module__.startswith("latchkey.")


def _artifact_marker(reference: dict[str, Any]) -> str:
    """Return a line that clients search for. Between the first colon and the last bar is JSON, whatever the title."""
    fields = {name: reference[name] for name in ("id", "artifact_type", "title")}
    return f"ARTIFACT_CREATED:{json.dumps(fields, ensure_ascii=False)}|File generated successfully."


class ToolHandlers:
    """Handles `tools/list` and `tools/call`. A tool that the credential does not grant does not exist for it."""

    def __init__(
        self,
        dispatcher: Dispatcher,
        executor: ToolCallExecutor,
        external: ExternalCallExecutor,
        tools: dict[str, Tool],
        approvals: ApprovalRequests,
    ) -> None:
        self._dispatcher = dispatcher
        self._executor = executor
        self._external = external
        self._tools = tools
        self._approvals = approvals

    async def list(self, _: Context, __: PaginatedRequestParams) -> Result:
        """Handle `tools/list`."""
        return await error_boundary(self._list(PRINCIPAL.get()))

    async def call(self, context: Context, params: CallToolRequestParams) -> Result:
        """Handle `tools/call`."""
        tool = self._tools.get(params.name)
        call = self._call(context, PRINCIPAL.get(), tool, params)
        return await error_boundary(call, tool.timeout_s if tool else 0.0)

    async def _list(self, principal: Principal) -> Result:
        scope = await principal.verify(self._dispatcher)
        return complete(tools=[tool.listing for tool in self._tools.values() if tool.binding.is_allowed(scope)])

    async def _call(
        self, context: Context, principal: Principal, tool: Tool | None, params: CallToolRequestParams
    ) -> Result:
        call_id = call_id_of(params.meta)
        if tool is None:
            await principal.verify(self._dispatcher)
            raise _unknown(params.name)
        arguments = params.arguments or {}
        invocation = ToolInvocation(tool.name, encode_arguments(arguments), call_id)
        try:
            if params.request_state is not None:
                return await self._resume(principal, tool, invocation, params)
            outcome = await self._execute(tool, principal, arguments, invocation)
            if outcome is NOT_APPROVED and isinstance(principal.credential, Owner) and can_ask(context):
                return await self._approvals.ask(principal, tool.title, invocation)
            return _result(outcome, tool.text)
        except Forbidden:
            raise _unknown(params.name) from None

    async def _resume(
        self, principal: Principal, tool: Tool, invocation: ToolInvocation, params: CallToolRequestParams
    ) -> Result:
        """Make a call, or decline it, that the user was asked about."""
        approval = await self._approvals.resume(principal, tool.title, invocation, params)
        if isinstance(approval, dict):
            return approval
        invocation = replace(invocation, call_id=approval.call_id, is_approved=approval.decision == "approve")
        if invocation.is_approved:
            return _result(await self._execute(tool, principal, params.arguments or {}, invocation), tool.text)
        declined = await self._executor.record_failure(
            principal.credential, invocation, tool.binding.use_case, Declined("The user has declined this call.")
        )
        return _result(declined, tool.text)

    async def _execute(
        self, tool: Tool, principal: Principal, arguments: Result, invocation: ToolInvocation
    ) -> ToolOutcome:
        binding = tool.binding
        try:
            values = binding.bind(arguments)
            if any(mark in invocation.arguments for mark in _MARKS_OF_UNSTORABLE):
                check_storable(arguments)
            if self._asks(tool, values, invocation.call_id):
                invocation = replace(invocation, asks=True)
        except Failure as failure:
            return await self._executor.record_failure(principal.credential, invocation, binding.use_case, failure)
        if tool.external is not None:
            return await self._external.execute(principal.credential, invocation, tool.external, values)
        return await self._executor.execute(principal.credential, invocation, binding.use_case, *values)

    def _asks(self, tool: Tool, values: Sequence[Any], call_id: str | None) -> bool:
        """Whether the tool declares that the user is asked first. Raises a `Failure`, also for a bug of the tool."""
        try:
            return tool.declaration.asks(values)
        except Failure:
            raise
        except Exception as error:
            self._dispatcher.log(ToolBug(tool.name, call_id, PRINCIPAL.get().credential.user_id, error))
            raise Failure(TOOL_BUG.detail) from error


def call_id_of(meta: Mapping[str, Any] | None) -> str | None:
    """Return the client's own id of the call, or None. Raises `MCPError` for an invalid id."""
    for key in CALL_ID_KEYS:
        if (call_id := (meta or {}).get(key)) is not None:
            try:
                return msgspec.convert(call_id, ExternalCallId)
            except (msgspec.ValidationError, UnicodeEncodeError) as error:
                raise MCPError(INVALID_PARAMS, f"_meta: {key} must be text of 1 to 255 characters") from error
    return None


def _result(outcome: ToolOutcome, text_of: TextOf | None) -> Result:
    """An error has no structured content, because the output schema describes only successful results."""
    if outcome.is_waiting:
        content = [{"type": "text", "text": outcome.json.decode()}]
        return complete(content=content, isError=True, _meta={IS_WAITING: True})
    if outcome.is_error:
        return complete(content=[{"type": "text", "text": outcome.json.decode()}], isError=True)
    content = msgspec.to_builtins(outcome.content)
    text = outcome.json.decode() if text_of is None else text_of(content)
    return complete(content=[{"type": "text", "text": text}], structuredContent=content, isError=False)


def _unknown(name: str) -> HandlerError:
    """Return the same error for a tool that does not exist and for a tool that the credential does not grant."""
    return HandlerError(NotFound.of("tool"), f"Unknown tool: {name}")
