"""The protocol's input requests (2026-07-28), with which a user's own client asks the user to approve a call."""

import json
from contextlib import suppress
from typing import Any
from uuid import UUID

from mcp_types import CallToolRequestParams, ClientCapabilities, ElicitResult
from mcp_types.version import MODERN_PROTOCOL_VERSIONS

from latchkey.application.call_approvals import CallApproval, decide_call_approval, request_call_approval
from latchkey.application.dispatcher import Dispatcher
from latchkey.domain.approval import DecisionName
from latchkey.domain.credentials import Owner
from latchkey.domain.errors import Invalid
from latchkey.domain.tool_call import ToolInvocation
from latchkey.interfaces.mcp.principal import Context, HandlerError, Principal, Result

_KEY = "approval"
"""The key of the only input request of a call."""

_SCHEMA = {
    "type": "object",
    "properties": {"approve": {"type": "boolean", "title": "Approve", "description": "Whether the call is made"}},
    "required": ["approve"],
}
_MAX_SHOWN = 8_000
"""Characters of the arguments in a message."""


class ApprovalRequests:
    """Asks the user of an `Owner` for approval, and reads the decision when the client repeats the call.

    The state of a request is the id of a stored question, so that it has a meaning for the same user and call only.
    """

    def __init__(self, dispatcher: Dispatcher, ttl_s: float) -> None:
        self._dispatcher = dispatcher
        self._ttl_s = ttl_s

    async def ask(self, principal: Principal, title: str, invocation: ToolInvocation) -> Result:
        """Store a question, and return the input request."""
        id = await self._dispatcher.call(principal.credential, request_call_approval, invocation)
        return _input_required(title, invocation, str(id))

    async def resume(
        self, principal: Principal, title: str, invocation: ToolInvocation, params: CallToolRequestParams
    ) -> CallApproval | Result:
        """Return the decision on a repeated call, or the same input request if the client sends no decision.

        Raises `HandlerError` for a state that this user was not given for this call, or that has expired.
        """
        owner, state = principal.credential, params.request_state or ""
        if not isinstance(owner, Owner):
            await principal.verify(self._dispatcher)
            raise _invalid_state(Invalid("Only the user's own credential can approve."))
        decision = _decision(params)
        try:
            approval = await self._dispatcher.call(
                owner, decide_call_approval, _question_id(state), invocation, decision, self._ttl_s
            )
        except Invalid as failure:
            raise _invalid_state(failure) from failure
        return _input_required(title, invocation, state) if approval.decision is None else approval


def can_ask(context: Context) -> bool:
    """Whether the client can answer an input request with a form. `elicitation: {}` stands for forms."""
    capabilities: ClientCapabilities | None = context.session.client_capabilities
    elicitation = None if capabilities is None else capabilities.elicitation
    if elicitation is None or context.protocol_version not in MODERN_PROTOCOL_VERSIONS:
        return False
    return elicitation.form is not None or elicitation.url is None


def _question_id(state: str) -> UUID:
    """Raises `Invalid` for a state that is not the id of a question, in its only form."""
    with suppress(ValueError):  # raised below, as for an id in another form
        if str(id := UUID(state)) == state:
            return id
    raise Invalid("The state is not the id of a question.")


def _decision(params: CallToolRequestParams) -> DecisionName | None:
    """Read the decision; None if the client sends none. Raises `HandlerError` for a form that was not filled in."""
    response = (params.input_responses or {}).get(_KEY)
    if response is None:
        return None
    if isinstance(response, ElicitResult):
        if response.action != "accept":
            return "decline"
        if isinstance(approve := (response.content or {}).get("approve"), bool):
            return "approve" if approve else "decline"
    detail = f'inputResponses.{_KEY}: must be {{"action": "accept", "content": {{"approve": true or false}}}}'
    raise HandlerError(Invalid(detail), detail)


def _input_required(title: str, invocation: ToolInvocation, state: str) -> Result:
    message = f"{title}: approve the call of the tool `{invocation.name}` with these arguments?\n\n{_shown(invocation)}"
    request = {
        "method": "elicitation/create",
        "params": {"mode": "form", "message": message, "requestedSchema": _SCHEMA},
    }
    return {"resultType": "input_required", "inputRequests": {_KEY: request}, "requestState": state}


def _shown(invocation: ToolInvocation) -> str:
    """Return the arguments as readable JSON in which no character is invisible, or changes how others are shown."""
    text = json.dumps(json.loads(invocation.arguments), indent=2, ensure_ascii=False)
    shown = "".join(char if char.isprintable() or char == "\n" else _escaped(char) for char in text[:_MAX_SHOWN])
    return shown if len(text) <= _MAX_SHOWN else f"{shown}\n… and {len(text) - _MAX_SHOWN} characters more"


def _escaped(char: str) -> str:
    return json.dumps(char)[1:-1]


def _invalid_state(failure: Invalid) -> HandlerError:
    """Return the same error whatever is wrong with the state."""
    data: dict[str, Any] = {"reason": "invalid_request_state"}
    return HandlerError(failure, "Invalid or expired requestState: repeat the call without it to be asked again.", data)
