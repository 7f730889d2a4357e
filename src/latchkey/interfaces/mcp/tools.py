"""The table of tools, in the order in which they are listed, and the handlers that list and call them."""

import json
from collections.abc import Callable, Mapping
from typing import Any

import msgspec
from mcp import MCPError
from mcp_types import INVALID_PARAMS, CallToolRequestParams, PaginatedRequestParams
from msgspec import Struct

from latchkey.application.artifacts import get_artifact, list_artifacts, save_artifact
from latchkey.application.dispatcher import Dispatcher
from latchkey.application.tasks import add_task, complete_task, delete_task, list_tasks, update_task
from latchkey.application.tool_calls import ToolCallExecutor, ToolInvocation, ToolOutcome
from latchkey.domain.errors import Forbidden, Invalid
from latchkey.domain.tool_call import ExternalCallId, encode_arguments
from latchkey.interfaces.mcp.handlers import Context, HandlerError, Result, complete, error_boundary
from latchkey.interfaces.mcp.principal import PRINCIPAL, Principal
from latchkey.interfaces.mcp.tool_schema import ToolBinding

TextOf = Callable[[dict[str, Any]], str]

CALL_ID_KEYS = ("latchkey/callId", "claudecode/toolUseId")
"""The keys of `_meta` under which clients send their own id of a call."""


class Tool(Struct, frozen=True):
    """A use case that models may call, and its entry in `tools/list`.

    `text` renders the text content of the result; the default is the structured content as JSON.
    """

    binding: ToolBinding
    listing: dict[str, Any]
    text: TextOf | None = None

    @property
    def name(self) -> str:
        """The name of the tool, which is the name of its use case."""
        return self.binding.name


def _tool(use_case: Callable[..., Any], title: str, annotations: dict[str, bool], text: TextOf | None = None) -> Tool:
    binding = ToolBinding.of(use_case)
    listing = {
        "name": binding.name,
        "title": title,
        "description": binding.description,
        "inputSchema": binding.input_schema,
        "outputSchema": binding.output_schema,
        "annotations": {**annotations, "openWorldHint": False},
    }
    return Tool(binding, listing, text)


def _artifact_marker(reference: dict[str, Any]) -> str:
    """Return a line that clients search for. Between the first colon and the last bar is JSON, whatever the title."""
    fields = {name: reference[name] for name in ("id", "artifact_type", "title")}
    return f"ARTIFACT_CREATED:{json.dumps(fields, ensure_ascii=False)}|File generated successfully."


# MCP annotations: does the tool change data, can it lose data, and does a repeated call change nothing more?
_READS = {"readOnlyHint": True, "destructiveHint": False, "idempotentHint": True}
_ADDS = {"readOnlyHint": False, "destructiveHint": False, "idempotentHint": False}
_MARKS = {"readOnlyHint": False, "destructiveHint": False, "idempotentHint": True}
_REPLACES = {"readOnlyHint": False, "destructiveHint": True, "idempotentHint": True}

_TOOLS = (
    _tool(add_task, "Add a to-do task", _ADDS),
    _tool(list_tasks, "List to-do tasks", _READS),
    _tool(complete_task, "Complete a to-do task", _MARKS),
    _tool(delete_task, "Delete a to-do task", _REPLACES),
    _tool(update_task, "Change a to-do task", _REPLACES),
    _tool(save_artifact, "Save a document", _ADDS, _artifact_marker),
    _tool(list_artifacts, "List saved documents", _READS),
    _tool(get_artifact, "Show a saved document", _READS),
)

TOOLS = {tool.name: tool for tool in _TOOLS}


class ToolHandlers:
    """Handles `tools/list` and `tools/call`. A tool that the credential does not grant does not exist for it."""

    def __init__(self, dispatcher: Dispatcher, executor: ToolCallExecutor) -> None:
        self._dispatcher = dispatcher
        self._executor = executor

    async def list(self, _: Context, __: PaginatedRequestParams) -> Result:
        """Handle `tools/list`."""
        return await error_boundary(self._list(PRINCIPAL.get()))

    async def call(self, _: Context, params: CallToolRequestParams) -> Result:
        """Handle `tools/call`."""
        return await error_boundary(self._call(PRINCIPAL.get(), params))

    async def _list(self, principal: Principal) -> Result:
        scope = await principal.verify(self._dispatcher)
        return complete(tools=[tool.listing for tool in TOOLS.values() if tool.binding.is_allowed(scope)])

    async def _call(self, principal: Principal, params: CallToolRequestParams) -> Result:
        tool, call_id = TOOLS.get(params.name), call_id_of(params.meta)
        if tool is None:
            await principal.verify(self._dispatcher)
            raise _unknown(params.name)
        try:
            outcome = await self._execute(tool.binding, principal, params.arguments or {}, call_id)
        except Forbidden:
            raise _unknown(params.name) from None
        return _result(outcome, tool.text)

    async def _execute(
        self, binding: ToolBinding, principal: Principal, arguments: Result, call_id: str | None
    ) -> ToolOutcome:
        invocation = ToolInvocation(binding.name, encode_arguments(arguments), call_id)
        try:
            values = binding.bind(arguments)
        except Invalid as failure:
            return await self._executor.record_failure(principal.credential, invocation, binding.use_case, failure)
        return await self._executor.execute(principal.credential, invocation, binding.use_case, *values)


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
    if outcome.is_error:
        return complete(content=[{"type": "text", "text": outcome.json.decode()}], isError=True)
    content = msgspec.to_builtins(outcome.content)
    text = outcome.json.decode() if text_of is None else text_of(content)
    return complete(content=[{"type": "text", "text": text}], structuredContent=content, isError=False)


def _unknown(name: str) -> HandlerError:
    """Return the same error for a tool that does not exist and for a tool that the credential does not grant."""
    return HandlerError(INVALID_PARAMS, f"Unknown tool: {name}")
