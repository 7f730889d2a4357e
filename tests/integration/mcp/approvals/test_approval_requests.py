"""Approval over MCP: a tool that asks is not run before the user has answered an input request of the protocol."""

from typing import Any

import pytest

from tests.apps.guarded import orders
from tests.integration.mcp.approvals.calls import (
    APPROVE,
    CANCEL,
    CAPABILITIES,
    DECLINE,
    FORMS,
    TEXT,
    UNCHECKED,
    Caller,
    error_of,
    titles,
)
from tests.integration.mcp.jsonrpc import message, post
from tests.integration.mcp.mcp_service import McpService


async def test_tool_that_asks_answers_with_input_request(service: McpService, me: Caller) -> None:
    result = await me.call("publish", {"text": "Hello\u202e\n«world»"})

    request = result["inputRequests"]["approval"]
    assert (result["resultType"], request["method"]) == ("input_required", "elicitation/create")
    assert request["params"]["mode"] == "form"
    assert request["params"]["requestedSchema"] == {
        "type": "object",
        "properties": {"approve": {"type": "boolean", "title": "Approve", "description": "Whether the call is made"}},
        "required": ["approve"],
    }
    text = request["params"]["message"]
    assert text.startswith("Publish a text: approve the call of the tool `publish`")
    assert '"text": "Hello\\u202e\\n«world»"' in text
    assert "structuredContent" not in result
    assert await titles(service) == []


async def test_message_about_large_arguments_says_how_much_is_left_out(me: Caller) -> None:
    result = await me.call("publish", {"text": "x" * 9_000})
    text = result["inputRequests"]["approval"]["params"]["message"]

    assert text.endswith(" characters more")
    assert len(text) < 8_200


async def test_approved_call_has_its_effect_and_result(service: McpService, me: Caller) -> None:
    state = await me.ask("publish", TEXT)
    result = await me.call("publish", TEXT, state, APPROVE)

    assert result["isError"] is False
    assert result["structuredContent"]["title"] == "Hello"
    assert await titles(service) == ["Hello"]


async def test_approved_call_outside_transaction_runs_once(me: Caller) -> None:
    state = await me.ask("order", {"sku": "bell"})
    assert orders == []
    first, repeated = [await me.call("order", {"sku": "bell"}, state, APPROVE) for _ in range(2)]

    assert first["structuredContent"] == repeated["structuredContent"] == {"sku": "bell"}
    assert len(orders) == 1


@pytest.mark.parametrize("response", [DECLINE, CANCEL, UNCHECKED], ids=["decline", "cancel", "unchecked"])
@pytest.mark.parametrize(("tool", "arguments"), [("publish", TEXT), ("order", {"sku": "x"}), ("show_balance", {})])
async def test_declined_call_is_tool_error_without_effect_and_stays_declined(
    service: McpService, me: Caller, response: Any, tool: str, arguments: Any
) -> None:
    """The first decision counts, also if the client sends the opposite one later."""
    state = await me.ask(tool, arguments)
    declined = await me.call(tool, arguments, state, response)
    approved_later = await me.call(tool, arguments, state, APPROVE)

    assert error_of(declined) == error_of(approved_later)
    assert error_of(declined)["code"] == "declined"
    assert (await titles(service), orders) == ([], [])


@pytest.mark.parametrize("call_id", [None, "call-1"])
async def test_replayed_state_has_one_effect_and_the_first_result(
    service: McpService, me: Caller, call_id: str | None
) -> None:
    """Whatever the repetition says: it approves or declines, with its own id of the call, or without one."""
    state = await me.ask("publish", TEXT, call_id)
    first = await me.call("publish", TEXT, state, APPROVE, call_id)
    others = [
        await me.call("publish", TEXT, state, response, id)
        for response in (APPROVE, DECLINE)
        for id in (None, "call-1", "call-2")
    ]

    assert [other["structuredContent"] for other in others] == [first["structuredContent"]] * 6
    assert await titles(service) == ["Hello"]


async def test_two_questions_about_one_call_have_one_effect(service: McpService, me: Caller) -> None:
    """A client that repeats a call by its id may be asked twice; a call that has run is not asked about again."""
    states = [await me.ask("publish", TEXT, "call-1") for _ in range(2)]
    first, second = [await me.call("publish", TEXT, state, APPROVE, "call-1") for state in states]
    repeated = await me.call("publish", TEXT, call_id="call-1")

    assert first["structuredContent"] == second["structuredContent"] == repeated["structuredContent"]
    assert await titles(service) == ["Hello"]


async def test_declined_call_is_not_asked_about_again(service: McpService, me: Caller) -> None:
    """A client that repeats the call by its id gets the first outcome, whatever else was answered meanwhile."""
    first, second = [await me.ask("publish", TEXT, "call-1") for _ in range(2)]
    declined = await me.call("publish", TEXT, first, DECLINE, "call-1")
    approved = await me.call("publish", TEXT, second, APPROVE, "call-1")
    repeated = await me.call("publish", TEXT, call_id="call-1")

    assert error_of(declined) == error_of(approved) == error_of(repeated)
    assert error_of(declined)["code"] == "declined"
    assert await titles(service) == []


async def test_each_call_is_asked_about_separately(service: McpService, me: Caller) -> None:
    """An approval holds for one call, not for all with these arguments."""
    first, second = [await me.ask("publish", TEXT) for _ in range(2)]
    await me.call("publish", TEXT, first, APPROVE)
    await me.call("publish", TEXT, second, APPROVE)
    third = await me.call("publish", TEXT)

    assert third["resultType"] == "input_required"
    assert await titles(service) == ["Hello", "Hello"]


async def test_missing_response_asks_again_with_the_same_state(service: McpService, me: Caller) -> None:
    """Responses to other requests are ignored; responses without a state belong to no request."""
    state = await me.ask("publish", TEXT)
    without = await me.call("publish", TEXT, state)
    others = await me.call("publish", TEXT, state, inputResponses={"other": APPROVE})
    unasked = await me.call("publish", TEXT, response=APPROVE)

    assert [result["requestState"] for result in (without, others)] == [state, state]
    assert unasked["resultType"] == "input_required"
    assert unasked["requestState"] != state
    assert await titles(service) == []


@pytest.mark.parametrize(
    "content",
    [None, {}, {"approve": None}, {"approve": "true"}, {"approve": 1}, {"ok": True}],
    ids=["none", "empty", "null", "text", "number", "another field"],
)
async def test_form_that_is_not_filled_in_is_refused_and_the_question_stays_open(
    service: McpService, me: Caller, content: Any
) -> None:
    state = await me.ask("publish", TEXT)
    members = {} if content is None else {"content": content}
    refused = await me.call("publish", TEXT, state, {"action": "accept", **members})
    assert (refused["code"], await titles(service)) == (-32602, [])

    await me.call("publish", TEXT, state, APPROVE)
    assert await titles(service) == ["Hello"]


async def test_function_of_the_arguments_decides_whether_a_tool_asks(service: McpService, me: Caller) -> None:
    paid = await me.call("pay", {"amount": 100})
    asked = await me.call("pay", {"amount": 101})

    assert paid["structuredContent"]["title"] == "Paid 100"
    assert asked["resultType"] == "input_required"
    assert await titles(service) == ["Paid 100"]


async def test_invalid_arguments_are_a_tool_error_before_the_user_is_asked(me: Caller) -> None:
    for arguments in ({}, {"text": 5}, {"text": "a\x00b"}):
        assert error_of(await me.call("publish", arguments))["code"] == "invalid"


@pytest.mark.parametrize("protocol", ["older", "oldest"])
async def test_older_protocol_gets_tool_error_that_says_where_to_approve(
    service: McpService, me: Caller, protocol: str
) -> None:
    older = Caller(service, me.http, me.bearer, protocol)
    failure = error_of(await older.call("publish", TEXT))

    assert failure["code"] == "approval-required"
    assert "/approvals/" in failure["detail"]
    assert "2026-07-28" in failure["detail"]
    assert await titles(service) == []


@pytest.mark.parametrize(
    ("capabilities", "can_ask"),
    [
        (FORMS, True),
        ({"elicitation": {}}, True),
        ({"elicitation": {"form": {}, "url": {}}}, True),
        ({"elicitation": {"url": {}}}, False),
        ({"sampling": {}}, False),
        ({}, False),
    ],
    ids=["form", "empty", "form and URL", "URL only", "sampling", "none"],
)
async def test_client_without_forms_gets_tool_error(
    service: McpService, me: Caller, capabilities: Any, *, can_ask: bool
) -> None:
    """The protocol forbids requests for which a client has declared no capability."""
    result = await me.call("publish", TEXT, _meta={CAPABILITIES: capabilities})
    if can_ask:
        assert result["resultType"] == "input_required"
    else:
        assert error_of(result)["code"] == "approval-required"
    assert await titles(service) == []


async def test_tool_list_marks_tools_that_ask(service: McpService) -> None:
    request = message("current", "tools/list")
    async with service.http() as http:
        response = await post(http, "current", request, service.jwt())
    tools = response.json()["result"]["tools"]

    marked = {tool["name"]: tool["_meta"]["latchkey/approval"] for tool in tools if "_meta" in tool}
    assert marked == {"publish": True, "pay": True, "show_balance": True, "order": True}
